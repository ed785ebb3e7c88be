"""From a seed to a clip: draw the meter, the bars, the players; collect their notes; mix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beatmeter.datasets.synth.clip import KINDS, METERS, Audio, Clip, FloatArray, IntArray
from beatmeter.datasets.synth.draws import pick, stream
from beatmeter.datasets.synth.effects import apply_effects
from beatmeter.datasets.synth.harmony import draw_harmony
from beatmeter.datasets.synth.meters import Meters, draw_meters
from beatmeter.datasets.synth.mixing import mix
from beatmeter.datasets.synth.notes import draw_dynamics
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.players import PERCUSSION, Player, Sounds, changes_of, notes_of, resting
from beatmeter.datasets.synth.structure import Phrase, draw_phrases, sections_of
from beatmeter.datasets.synth.styles import STYLES, Style
from beatmeter.datasets.synth.timing import Timing, draw_timing
from beatmeter.errors import ConfigError, nearest


def render(
    seed: int,
    *,
    meter: int | None = None,
    seconds: float = 30.0,
    sample_rate: int = 24000,
    kind: str | None = None,
    options: SynthOptions = SynthOptions(),  # noqa: B008 (frozen)
) -> Clip:
    """Render the clip of a seed: the same bytes in any process and any order.

    meter: fix the primary class; None draws it. seconds: length of the audio. kind: one of `clip.KINDS`, None
    draws.
    """
    if meter is not None and meter not in METERS:
        raise ConfigError(f"meter must be one of {METERS}, got {meter}")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind must be one of {KINDS}, got {kind!r}")
    if not 0.5 <= seconds <= 3600 or not 8000 <= sample_rate <= 192000:
        raise ConfigError(
            f"need 0.5 <= seconds <= 3600 and 8000 <= sample_rate <= 192000, got {seconds}, {sample_rate}"
        )
    rng = stream(seed, "piece")
    style = _draw_style(stream(seed, "style"), options)
    meters = draw_meters(stream(seed, "meter"), meter, kind, seconds, options)
    layout = meters.first
    phrases = draw_phrases(rng, layout, steady=rng.random() < style.steady)
    feel = pick(rng, style.feels)
    if feel == "rubato" and rng.random() > 2 * options.rubato:
        feel = "human"
    cut = rng.random() < options.cut
    origin = float(rng.uniform(0, layout.pulses)) if cut else 0.0
    swing = (
        float(rng.uniform(0.52, 0.68)) if rng.random() < options.swing and layout.division % 2 == 0 else 0.5
    )
    if meters.kind == "polyrhythm" or meters.pulse / 2 < 0.12:
        swing = 0.5
    ends = np.array([layout.starts[phrase.first + phrase.bars] for phrase in phrases])
    timing = draw_timing(
        rng, feel=feel, pulse=meters.pulse, bars=layout.starts, phrases=ends, origin=origin, swing=swing
    )
    silence = (0.0, seconds)
    if rng.random() < options.silence:
        silence = (float(rng.uniform(0, 0.08)) * seconds, seconds * (1 - float(rng.uniform(0, 0.12))))
    audio, chords = _perform(seed, style, meters, phrases, timing, silence, seconds, sample_rate)
    audio = apply_effects(audio, stream(seed, "effects"), options, sample_rate)
    audio[: int(silence[0] * sample_rate * 0.98)] *= 0 if stream(seed, "ends").random() < 0.5 else 1
    return clip_of(seed, audio, sample_rate, seconds, silence, style, meters, phrases, timing, chords)


def _draw_style(rng: np.random.Generator, options: SynthOptions) -> Style:
    factors = dict(options.style_weights)
    unknown = set(factors) - {style.name for style in STYLES}
    if unknown:
        raise ConfigError(
            f"style_weights names {sorted(unknown)}",
            nearest(sorted(unknown)[0], [style.name for style in STYLES]),
        )
    rows = [(style, style.weight * factors.get(style.name, 1.0)) for style in STYLES]
    if not any(weight for _, weight in rows):
        raise ConfigError("style_weights switch every style off", "Give at least one style a factor above 0.")
    return pick(rng, rows)


def _perform(
    seed: int,
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    timing: Timing,
    silence: tuple[float, float],
    seconds: float,
    rate: int,
) -> tuple[Audio, FloatArray]:
    """The music, and the pulses at which chords change."""
    rng = stream(seed, "players")
    harmony_rng = stream(seed, "harmony")
    harmony = draw_harmony(
        harmony_rng,
        meters.first,
        phrases,
        rhythm=pick(rng, style.harmony),
        loop=rng.random() < style.loop,
    )
    dynamics = draw_dynamics(rng, flat=rng.random() < style.flat)
    parts = [part for part in style.parts if rng.random() < part.chance]
    if not parts:
        parts = [style.parts[0]]
    if meters.second is not None and len(parts) == 1:
        parts = [*parts, parts[0]]
    second_phrases = draw_phrases(stream(seed, "second"), meters.second, steady=True) if meters.second else []
    out = np.zeros(round(seconds * rate), dtype=np.float32)
    sounds = Sounds(style, rate)
    spread = rng.uniform(0, 5)
    for number, part in enumerate(parts):
        own = stream(seed, f"part {number}")
        on_second = meters.second is not None and number % 2 == 1
        layout = meters.second if on_second and meters.second is not None else meters.first
        player = Player(
            part=part,
            layout=layout,
            phrases=second_phrases if on_second else phrases,
            harmony=harmony,
            pulse=meters.pulse * layout.unit,
            dynamics=dynamics,
            scored=style.loop < 0.3,
        )
        notes = notes_of(own, stream(seed, f"part {max(0, number - 1)}"), player, parts, number)
        table = resting(own, notes.table(), phrases, meters.first, part, len(parts))
        level = 10 ** ((part.level + rng.normal(0, spread)) / 20)
        level *= 0.7 if part.role in PERCUSSION else 1.0
        sounding = sounds.of(own, part, table)
        mix(out, own, table, timing, sounding, level, silence, rate)
    return out, changes_of(harmony, parts)


def clip_of(
    seed: int,
    audio: Audio,
    rate: int,
    seconds: float,
    silence: tuple[float, float],
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    timing: Timing,
    chords: FloatArray | None = None,
) -> Clip:
    """Audio and the grid that it was played on; `silence` is where the music begins and ends, in seconds;
    `chords` the pulses at which they change."""
    form, layout = meters.form, meters.first
    felt = layout.felt_beats(form.unit)
    positions = (layout.starts[:-1, None] + felt[None, :]).reshape(-1)
    numbers: IntArray = np.tile(np.arange(1, len(felt) + 1, dtype=np.int64), layout.bars)
    inside_from, inside_to = silence

    def sounding(pulses: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        times = timing.at(pulses)
        return times, (times >= inside_from) & (times < inside_to)

    times, keep = sounding(positions)
    downs, keep_downs = sounding(layout.starts)
    empty = np.zeros(0)
    second = empty
    if meters.second is not None:
        other, keep_other = sounding(meters.second.starts)
        second = other[keep_other]
    changes, keep_changes = sounding(np.zeros(0) if chords is None else chords)
    spans = []
    for start, end, label in sections_of(phrases, layout):
        low, high = (float(value) for value in timing.at(np.array([start, end])))
        low, high = max(low, inside_from), min(high, inside_to)
        if high > low:
            spans.append((low, high, label))
    beats = times[keep]
    axis = timing.seconds[(timing.seconds >= 0) & (timing.seconds <= seconds)]
    mean = float(np.diff(axis).mean()) if len(axis) > 1 else meters.pulse
    return Clip(
        audio=audio,
        sample_rate=rate,
        seed=seed,
        meters=meters.weights,
        primary=meters.primary,
        grouping=form.groups,
        tempo=60.0 / mean,
        beats=beats,
        beat_numbers=numbers[keep],
        downbeats=downs[keep_downs],
        second_downbeats=second,
        sections=tuple(spans),
        kind=meters.kind,
        style=style.name,
        chords=changes[keep_changes],
    )
