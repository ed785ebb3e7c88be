"""From a seed to a whole song: draw its form and bars, compose every letter once, lay the letters out,
mix."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import Audio, FloatArray
from beatmeter.datasets.synth.draws import pick, stream
from beatmeter.datasets.synth.effects import apply_effects
from beatmeter.datasets.synth.meters import draw_division
from beatmeter.datasets.synth.mixing import mix, percussion
from beatmeter.datasets.synth.notes import draw_dynamics
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.players import PERCUSSION, STROKE_NUMBERS, Player, Sounds, notes_of
from beatmeter.datasets.synth.songs.arrangement import Arrangement, draw_arrangement
from beatmeter.datasets.synth.songs.forms import Plan, SongForm, draw_plan, draw_song_form
from beatmeter.datasets.synth.songs.material import draw_reading, draw_score, lay_out
from beatmeter.datasets.synth.songs.song import Section, Song
from beatmeter.datasets.synth.songs.transitions import Transitions, draw_transitions
from beatmeter.datasets.synth.styles import STYLES, Part, Style
from beatmeter.datasets.synth.timing import Timing, draw_timing
from beatmeter.errors import ConfigError


@dataclass(frozen=True)
class _Piece:
    """All that is drawn before a note sounds."""

    seed: int
    form: SongForm
    style: Style
    plan: Plan
    parts: list[Part]
    arrangement: Arrangement
    transitions: Transitions
    timing: Timing


def render_song(
    seed: int,
    *,
    form: str | None = None,
    sample_rate: int = 24000,
    seconds: tuple[float, float] = (120.0, 300.0),
    options: SynthOptions = SynthOptions(),  # noqa: B008 (frozen)
) -> Song:
    """Render the song of a seed: the same bytes in any process and any order.

    form: a row of `forms.SONG_FORMS` by name; None draws it. seconds: shortest and longest music. options:
    effects, rubato, swing.
    """
    if not 8000 <= sample_rate <= 192000 or not 10 <= seconds[0] < seconds[1] <= 3600:
        raise ConfigError(
            f"need 8000 <= sample_rate <= 192000 and 10 <= seconds <= 3600, got {sample_rate}, {seconds}"
        )
    row = draw_song_form(stream(seed, "song form"), form)
    style = pick(stream(seed, "style"), [(style, dict(row.styles).get(style.name, 0.0)) for style in STYLES])
    plan = draw_plan(stream(seed, "plan"), row, seconds)
    players = stream(seed, "players")
    parts = [part for part in style.parts if players.random() < part.chance] or [style.parts[0]]
    drums = any(part.role == "drums" for part in parts)
    beat = 1.0 if plan.meter.unit == "quarter" else float(plan.meter.groups[-1])
    piece = _Piece(
        seed,
        row,
        style,
        plan,
        parts,
        draw_arrangement(stream(seed, "arrangement"), row, plan.sections, parts),
        draw_transitions(
            stream(seed, "transitions"), plan.sections, plan.meter.pulses, beat, drums=drums, dance=row.dance
        ),
        _draw_timing(stream(seed, "time"), style, plan, options, dance=row.dance),
    )
    ends = stream(seed, "ends")
    total = float(piece.timing.at(np.array([plan.bars * plan.meter.pulses]))[0]) + float(
        ends.uniform(0.3, 3.0)
    )
    audio = np.zeros(round(total * sample_rate), dtype=np.float32)
    _perform(piece, audio, sample_rate, total)
    audio = piece.transitions.sound(audio, stream(seed, "noises"), piece.timing, sample_rate)
    audio = apply_effects(audio, stream(seed, "effects"), options, sample_rate)
    return _song(piece, audio, sample_rate)


def _draw_timing(
    rng: np.random.Generator, style: Style, plan: Plan, options: SynthOptions, *, dance: bool
) -> Timing:
    """The tempo curve, with a second or so of silence before the first downbeat."""
    feel = "machine" if dance else pick(rng, style.feels)
    if feel == "rubato" and rng.random() > 2 * options.rubato:
        feel = "human"
    pulses = plan.meter.pulses
    starts = np.arange(plan.bars + 1, dtype=np.float64) * pulses
    ends = np.cumsum([section.bars for section in plan.sections]).astype(np.float64) * pulses
    division = draw_division(rng, plan.meter, plan.pulse)
    swing = (
        float(rng.uniform(0.52, 0.68))
        if rng.random() < options.swing and division % 2 == 0 and plan.pulse / 2 > 0.12
        else 0.5
    )
    timing = draw_timing(rng, feel=feel, pulse=plan.pulse, bars=starts, phrases=ends, origin=0.0, swing=swing)
    lead = float(rng.uniform(0, 0.05)) if rng.random() < 0.4 else float(rng.uniform(0.05, 2.5))
    return Timing(timing.seconds + lead, timing.first, timing.swing, timing.jitter)


def _perform(piece: _Piece, audio: Audio, rate: int, total: float) -> None:
    """Add every part and the strokes of transitions to `audio`."""
    seed, plan, style, parts = piece.seed, piece.plan, piece.style, piece.parts
    rng = stream(seed, "score")
    alike = (piece.form.shared, *rng.uniform(0.4, 1.0, 2).tolist())
    score = draw_score(
        rng,
        plan.sections,
        plan.meter,
        draw_division(rng, plan.meter, plan.pulse),
        rhythm=pick(rng, style.harmony),
        loop=rng.random() < max(style.loop, 0.4 if piece.form.name == "pop" else 0.0),
        alike=alike,
    )
    reading = draw_reading(stream(seed, "reading"), plan.sections, score)
    dynamics = draw_dynamics(rng, flat=rng.random() < style.flat)
    spread = rng.uniform(0, 5)
    up, key = _draw_shift(stream(seed, "key"), plan)
    sounds = Sounds(style, rate)
    silence = (0.0, total)
    for number, part in enumerate(parts):
        own = stream(seed, f"part {number}")
        player = Player(
            part,
            score.layout,
            score.phrases_for(part.role),
            score.harmony,
            plan.pulse,
            dynamics,
            scored=style.loop < 0.3,
        )
        notes = notes_of(own, stream(seed, f"part {max(0, number - 1)}"), player, parts, number)
        table = lay_out(notes.table(), score, reading)
        bars = np.clip(np.floor(table[:, 0] / score.bar + 1e-9).astype(int), 0, plan.bars - 1)
        table[:, 3] *= piece.arrangement.gains[number, bars]
        table = piece.transitions.thin(table[table[:, 3] > 0], part)
        if part.role not in PERCUSSION:
            table[table[:, 0] >= up * score.bar, 2] += key
        level = 10 ** ((part.level + rng.normal(0, spread)) / 20)
        level *= 0.7 if part.role in PERCUSSION else 1.0
        mix(audio, own, table, piece.timing, sounds.of(own, part, table), level, silence, rate)
    own = stream(seed, "strokes")
    table = piece.transitions.strokes(own, STROKE_NUMBERS, plan.meter.pulses, plan.pulse)
    mix(audio, own, table, piece.timing, percussion(own, table, rate), 0.6, silence, rate)


def _draw_shift(rng: np.random.Generator, plan: Plan) -> tuple[int, int]:
    """(first bar, semitones) of a change of key near the end; most songs have none."""
    if rng.random() > 0.08 or len(plan.sections) < 6:
        return plan.bars + 1, 0
    first = sum(section.bars for section in plan.sections[: -int(rng.integers(1, 4))])
    return first, int(rng.integers(1, 3))


def _song(piece: _Piece, audio: Audio, rate: int) -> Song:
    plan, timing = piece.plan, piece.timing
    pulses, meter = plan.meter.pulses, plan.meter
    starts = np.arange(plan.bars + 1, dtype=np.float64) * pulses
    felt = (
        np.arange(pulses) if meter.unit == "quarter" else np.concatenate([[0], np.cumsum(meter.groups)[:-1]])
    )
    beats = timing.at((starts[:-1, None] + felt[None, :]).reshape(-1))
    edges = timing.at(
        np.concatenate([[0], np.cumsum([section.bars for section in plan.sections])]) * float(pulses)
    )
    sections = tuple(
        Section(float(start), float(end), section.letter, section.function)
        for section, start, end in zip(plan.sections, edges, edges[1:], strict=False)
    )
    led = _led_up(sections)
    return Song(
        audio=audio,
        sample_rate=rate,
        seed=piece.seed,
        form=piece.form.name,
        style=piece.style.name,
        meter=meter.meter,
        grouping=meter.groups,
        tempo=60.0 / float(np.diff(beats).mean()),
        beats=beats,
        beat_numbers=np.tile(np.arange(1, len(felt) + 1, dtype=np.int64), plan.bars),
        downbeats=timing.at(starts[:-1]),
        sections=sections,
        drops=np.array([section.start for section in led]),
        buildups=np.array([(s.start, s.end) for s in sections if s.function == "build-up"]).reshape(-1, 2),
    )


def _led_up(sections: Sequence[Section]) -> list[Section]:
    """Drops that a build-up or a break leads to."""
    pairs = itertools.pairwise(sections)
    return [
        after
        for before, after in pairs
        if after.function == "drop" and before.function in {"build-up", "break"}
    ]


def boundaries(song: Song) -> FloatArray:
    """(boundary,) seconds between sections, first start and last end included."""
    return np.array([song.sections[0].start, *(section.end for section in song.sections)])
