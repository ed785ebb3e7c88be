"""From a seed to a clip: draw the meter, the bars, the players; collect their notes; mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from beatmeter.audio.synth import accompaniment as under
from beatmeter.audio.synth import drums
from beatmeter.audio.synth.chance import pick, stream
from beatmeter.audio.synth.clip import KINDS, METERS, Audio, Clip, FloatArray, IntArray
from beatmeter.audio.synth.effects import apply_effects
from beatmeter.audio.synth.forms import Form, draw_form
from beatmeter.audio.synth.harmony import Harmony, draw_harmony
from beatmeter.audio.synth.hits import STROKES, make_stroke
from beatmeter.audio.synth.melody import MelodyStyle, melody_part
from beatmeter.audio.synth.notes import Dynamics, Notes, draw_dynamics
from beatmeter.audio.synth.options import SynthOptions
from beatmeter.audio.synth.structure import Phrase, draw_phrases, sections_of
from beatmeter.audio.synth.styles import STYLES, Part, Style
from beatmeter.audio.synth.timing import Layout, Timing, draw_timing, make_layout
from beatmeter.audio.synth.tones import Instrument
from beatmeter.errors import ConfigError, nearest

STROKE_NUMBERS = {name: number for number, name in enumerate(STROKES)}
Sounding = Callable[[int, float], tuple[Audio, int]]  # (pitch or stroke, seconds) -> (samples, release in samples)


@dataclass(frozen=True)
class Player:
    """A part with everything it plays from."""

    part: Part
    layout: Layout
    phrases: list[Phrase]
    harmony: Harmony
    pulse: float  # seconds of one pulse of the layout
    dynamics: Dynamics
    scored: bool  # notated music: textures may change from bar to bar


def _melody(rng: np.random.Generator, player: Player, *, exact: bool = False) -> Notes:
    part = player.part
    style = MelodyStyle(
        low=part.centre - int(rng.integers(6, 10)),
        high=part.centre + int(rng.integers(6, 14)),
        density=float(rng.uniform(*part.density)),
        exact=exact,
        rest=float(rng.uniform(0, 0.7)),
        pickup=0.0 if exact else 0.35,
        legato=float(rng.uniform(0.45, 1.0)),
        ornaments=0.0 if exact or rng.random() < 0.5 else float(rng.uniform(0, 0.1)),
        syncopation=0.15 if rng.random() < 0.2 else 0.0,
    )
    return melody_part(rng, player.layout, player.phrases, player.harmony, style, player.pulse, player.dynamics)


def _figure(rng: np.random.Generator, player: Player) -> Notes:
    p = player
    return under.figure_part(rng, p.layout, p.phrases, p.harmony, p.pulse, p.dynamics, p.part.centre, wander=p.scored)


def _block(rng: np.random.Generator, player: Player) -> Notes:
    p = player
    density = float(rng.uniform(*p.part.density))
    return under.block_part(rng, p.layout, p.phrases, p.harmony, p.pulse, p.dynamics, density, p.part.centre)


def _bass(rng: np.random.Generator, player: Player) -> Notes:
    p = player
    return under.bass_part(rng, p.layout, p.phrases, p.harmony, p.pulse, p.dynamics, p.part.centre)


def _pad(rng: np.random.Generator, player: Player) -> Notes:
    return under.pad_part(rng, player.layout, player.harmony, player.dynamics, player.part.centre)


def _drone(rng: np.random.Generator, player: Player) -> Notes:
    return under.drone_part(rng, player.layout, player.harmony, player.pulse)


def _drums(rng: np.random.Generator, player: Player) -> Notes:
    p = player
    ensemble = drums.ENSEMBLES[p.part.ensemble]
    return drums.drum_part(rng, p.layout, p.phrases, ensemble, p.pulse, p.dynamics, STROKE_NUMBERS)


def _theka(rng: np.random.Generator, player: Player) -> Notes:
    return drums.theka_part(rng, player.layout, player.phrases, player.pulse, STROKE_NUMBERS)


def _click(rng: np.random.Generator, player: Player) -> Notes:
    layout = player.layout
    slow = len(layout.groups) == 1 or player.pulse > 0.24
    beats = list(range(layout.pulses)) if slow else layout.group_starts().tolist()
    return drums.click_part(rng, player.layout, beats, STROKE_NUMBERS)


ROLES: dict[str, Callable[[np.random.Generator, Player], Notes]] = {
    "melody": _melody,
    "counter": _melody,
    "riff": lambda rng, player: _melody(rng, player, exact=True),
    "figure": _figure,
    "block": _block,
    "bass": _bass,
    "pad": _pad,
    "drone": _drone,
    "drums": _drums,
    "theka": _theka,
    "click": _click,
}
PERCUSSION = frozenset({"drums", "theka", "click"})


@dataclass(frozen=True)
class Meters:
    """The layouts of a piece: one, or two for a polymeter."""

    form: Form
    pulse: float
    first: Layout
    second: Layout | None
    weights: dict[int, float]
    primary: int
    kind: str


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

    meter: fix the primary class; None draws it. seconds: length of the audio. kind: one of `clip.KINDS`, None draws.
    """
    if meter is not None and meter not in METERS:
        raise ConfigError(f"meter must be one of {METERS}, got {meter}")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind must be one of {KINDS}, got {kind!r}")
    if not 0.5 <= seconds <= 3600 or not 8000 <= sample_rate <= 192000:
        raise ConfigError(f"need 0.5 <= seconds <= 3600 and 8000 <= sample_rate <= 192000, got {seconds}, {sample_rate}")
    rng = stream(seed, "piece")
    style = _draw_style(stream(seed, "style"), options)
    meters = _draw_meters(stream(seed, "meter"), meter, kind, seconds, options)
    layout = meters.first
    phrases = draw_phrases(rng, layout, steady=rng.random() < style.steady)
    feel = pick(rng, style.feels)
    if feel == "rubato" and rng.random() > 2 * options.rubato:
        feel = "human"
    cut = rng.random() < options.cut
    origin = float(rng.uniform(0, layout.pulses)) if cut else 0.0
    swing = float(rng.uniform(0.52, 0.68)) if rng.random() < options.swing and layout.division % 2 == 0 else 0.5
    if meters.kind == "polyrhythm" or meters.pulse / 2 < 0.12:
        swing = 0.5
    ends = np.array([layout.starts[phrase.first + phrase.bars] for phrase in phrases])
    timing = draw_timing(rng, feel=feel, pulse=meters.pulse, bars=layout.starts, phrases=ends, origin=origin, swing=swing)
    silence = (0.0, seconds)
    if rng.random() < options.silence:
        silence = (float(rng.uniform(0, 0.08)) * seconds, seconds * (1 - float(rng.uniform(0, 0.12))))
    audio = _perform(seed, style, meters, phrases, timing, silence, seconds, sample_rate)
    audio = apply_effects(audio, stream(seed, "effects"), options, sample_rate)
    audio[: int(silence[0] * sample_rate * 0.98)] *= 0 if stream(seed, "ends").random() < 0.5 else 1
    return _clip(seed, audio, sample_rate, seconds, silence, style, meters, phrases, timing)


def _draw_style(rng: np.random.Generator, options: SynthOptions) -> Style:
    factors = dict(options.style_weights)
    unknown = set(factors) - {style.name for style in STYLES}
    if unknown:
        raise ConfigError(f"style_weights names {sorted(unknown)}", nearest(sorted(unknown)[0], [style.name for style in STYLES]))
    rows = [(style, style.weight * factors.get(style.name, 1.0)) for style in STYLES]
    if not any(weight for _, weight in rows):
        raise ConfigError("style_weights switch every style off", "Give at least one style a factor above 0.")
    return pick(rng, rows)


def _draw_meters(rng: np.random.Generator, meter: int | None, kind: str | None, seconds: float, options: SynthOptions) -> Meters:
    if kind is None:
        chances = (("polymeter", options.polymeter), ("polyrhythm", options.polyrhythm), ("hemiola", options.hemiola))
        rest = 1.0 - sum(chance for _, chance in chances)
        kind = pick(rng, (*chances, ("single", rest)))
    if kind == "hemiola":
        meter = meter if meter in (3, 4) else 3
    primary = meter if meter is not None else pick(rng, options.class_weights)
    form, pulse = draw_form(rng, primary, options)
    division = _draw_division(rng, form, pulse)
    span = seconds / pulse * 1.15 + 2 * form.pulses
    first = make_layout(form, pulses=span, division=division)
    if kind == "single":
        return Meters(form, pulse, first, None, {primary: 1.0}, primary, kind)
    other, second = _second_layout(rng, kind, primary, form, pulse, first, span)
    weight = float(rng.uniform(0.5, 1.0))
    return Meters(form, pulse, first, second, {primary: 1.0, other: round(weight, 3)}, primary, kind)


def _second_layout(rng: np.random.Generator, kind: str, primary: int, form: Form, pulse: float, first: Layout, span: float) -> tuple[int, Layout]:
    """Another bar length over the same pulses, or another number of beats in the same bar."""
    groups = {3: (3,), 4: (4,), 5: (3, 2), 7: (4, 3), 9: (5, 4), 11: (4, 4, 3)}
    if kind == "hemiola":
        other = 4 if primary == 3 else 3
        bar: tuple[int, ...] = (2,) if other == 4 else (3,)
        return other, make_layout(Form(other, "hemiola", bar, form.unit), pulses=span, division=first.division)
    others = [other for other in METERS if other != primary]
    if kind == "polyrhythm":
        beats = len(first.group_starts()) if form.unit == "eighth" else first.pulses
        bar_seconds = pulse * first.pulses
        fitting = [(other, 1.0 / other) for other in others if bar_seconds / other > 0.11 and other != beats]
        other = pick(rng, fitting) if fitting else (3 if primary != 3 else 4)
        form2 = Form(other, "against", groups[other], "quarter")
        return other, make_layout(form2, pulses=span, division=1, unit=first.pulses / other)
    other = pick(rng, [(other, 1.0) for other in others])
    return other, make_layout(Form(other, "over", groups[other], form.unit), pulses=span, division=first.division)


def _draw_division(rng: np.random.Generator, form: Form, pulse: float) -> int:
    if form.unit == "eighth":
        return 2 if pulse > 0.17 else 1
    table = [(ticks, weight) for ticks, weight in ((4, 3.0), (2, 1.5), (3, 1.0)) if pulse / ticks > 0.075]
    return pick(rng, table) if table else 2


def _perform(
    seed: int,
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    timing: Timing,
    silence: tuple[float, float],
    seconds: float,
    rate: int,
) -> Audio:
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
    instruments: dict[int, Instrument] = {}
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
        row = style.parts.index(part)
        if part.role == "double":
            notes = _doubled(own, stream(seed, f"part {max(0, number - 1)}"), player, parts, number)
        else:
            notes = ROLES[part.role](own, player)
        table = _resting(own, notes.table(), phrases, meters.first, part, len(parts))
        level = 10 ** ((part.level + rng.normal(0, spread)) / 20)
        if part.role in PERCUSSION:
            sounding = _percussion(own, table, rate)
            level *= 0.7
        else:
            source = next((at for at in (part.same, row) if at in instruments), row)
            if source not in instruments:
                families = part.families or style.parts[max(0, part.same)].families
                instruments[source] = Instrument(pick(own, families), own, rate)
            sounding = _pitched(instruments[source])
        _mix(out, own, table, timing, sounding, level, silence, rate)
    return out


def _doubled(rng: np.random.Generator, twin: np.random.Generator, player: Player, parts: list[Part], number: int) -> Notes:
    """The part before, an octave away and now and then without its short notes."""
    source = parts[number - 1] if number else player.part
    role = source.role if source.role in ROLES else "melody"
    shifted = replace(player, part=source)
    octave = 12 * int(rng.choice((-1, 0, 1)))
    notes = ROLES[role](twin, shifted)
    return Notes([(at, length, pitch + octave, level) for at, length, pitch, level in notes.rows])


def _resting(rng: np.random.Generator, table: FloatArray, phrases: list[Phrase], layout: Layout, part: Part, count: int) -> FloatArray:
    """Parts of larger textures rest for whole phrases now and then."""
    if count < 3 or not len(table) or rng.random() < 0.5:
        return table
    keep = np.ones(len(table), dtype=bool)
    for phrase in phrases:
        if rng.random() < 0.12:
            start, end = layout.starts[phrase.first], layout.starts[phrase.first + phrase.bars]
            keep &= ~((table[:, 0] >= start) & (table[:, 0] < end))
    return table[keep]


def _percussion(rng: np.random.Generator, table: FloatArray, rate: int) -> Sounding:
    names = list(STROKES)
    sounds: dict[int, Audio] = {}
    for number in sorted({int(value) for value in table[:, 2]}):
        sounds[number] = make_stroke(names[number], rng, rate)

    def sound(number: int, seconds: float) -> tuple[Audio, int]:
        return sounds[number], 0

    return sound


def _pitched(instrument: Instrument) -> Sounding:
    release = int(instrument.release * instrument.rate)

    def sound(pitch: int, seconds: float) -> tuple[Audio, int]:
        return instrument.note(min(108, max(24, pitch)), seconds), release

    return sound


def _mix(
    out: Audio,
    rng: np.random.Generator,
    table: FloatArray,
    timing: Timing,
    sounding: Sounding,
    level: float,
    silence: tuple[float, float],
    rate: int,
) -> None:
    """Add every note: the sound up to its length, then its release."""
    if not len(table):
        return
    onsets = timing.at(table[:, 0])
    lengths = np.maximum(0.04, timing.at(table[:, 0] + table[:, 1]) - onsets)
    onsets = onsets + rng.normal(0, timing.jitter, len(onsets)) if timing.jitter else onsets
    ramps: dict[int, Audio] = {}
    total = len(out)
    final = int(silence[1] * rate)
    for onset, length, pitch, velocity in zip(onsets.tolist(), lengths.tolist(), table[:, 2].astype(int).tolist(), table[:, 3].tolist(), strict=True):
        if onset + length < silence[0] or onset >= silence[1] or (silence[0] > 0 and onset < silence[0] - 0.02):
            continue
        wave, release = sounding(pitch, min(length, 8.0))
        start = int(onset * rate)
        stop = start + (min(len(wave), int(length * rate)) if release else len(wave))
        gain = np.float32(level * velocity)
        low, high = max(0, start), min(total, stop)
        if high > low:
            out[low:high] += wave[low - start : high - start] * gain
        if release and stop < total and stop - start < len(wave):
            if release not in ramps:
                ramps[release] = np.linspace(1, 0, release, dtype=np.float32)
            tail = wave[stop - start : stop - start + release]
            low, high = max(0, stop), min(total, stop + len(tail))
            if high > low:
                ramp = ramps[release][low - stop : high - stop]
                out[low:high] += tail[low - stop : high - stop] * ramp * gain
    if final < total:
        fade = min(rate // 2, final)
        out[final - fade : final] *= np.linspace(1, 0, fade, dtype=np.float32)
        out[final:] = 0


def _clip(
    seed: int,
    audio: Audio,
    rate: int,
    seconds: float,
    silence: tuple[float, float],
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    timing: Timing,
) -> Clip:
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
    )
