"""Kinds of music that are hard to hear: slow bars, rubato, dances, disguises, two meters, two layers.

A clip of a slice is made of the same players, chords and sounds as `render` makes, which stays as it is; what
differs is in the row of `SLICES`. `plain` is `render` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from beatmeter.datasets.synth.clip import METERS, Audio, Clip, FloatArray
from beatmeter.datasets.synth.dances import BY_NAME, draw_dance, stressed
from beatmeter.datasets.synth.disguises import DISGUISES
from beatmeter.datasets.synth.draws import one_of, pick, stream
from beatmeter.datasets.synth.effects import apply_effects
from beatmeter.datasets.synth.forms import Form, draw_form
from beatmeter.datasets.synth.harmony import draw_harmony
from beatmeter.datasets.synth.meters import Meters, draw_meters
from beatmeter.datasets.synth.mixing import mix
from beatmeter.datasets.synth.notes import Dynamics, draw_dynamics
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.players import PERCUSSION, Player, Sounds, changes_of, notes_of, resting
from beatmeter.datasets.synth.rendering import clip_of, render
from beatmeter.datasets.synth.structure import Phrase, draw_phrases
from beatmeter.datasets.synth.styles import (
    ANY,
    BASSES,
    CLASSICAL,
    FOLK,
    PADS,
    STYLES,
    Part,
    Style,
    Weights,
)
from beatmeter.datasets.synth.timing import Timing, draw_rubato, draw_timing
from beatmeter.datasets.synth.touch import draw_touch
from beatmeter.errors import ConfigError, nearest

ONE_METER = SynthOptions(polymeter=0.0, polyrhythm=0.0, hemiola=0.0)
PIANO: Weights = (("piano", 6), ("old_piano", 2))
SOLO: tuple[Style, ...] = (
    Style("solo piano", 5.0, (
        Part("figure", families=PIANO, centre=53),
        Part("melody", 0.95, same=0, level=3, centre=74, density=(0.1, 0.9)),
        Part("counter", 0.2, same=0, level=-3, centre=63, density=(0.0, 0.4)),
    ), flat=0.0, harmony=CLASSICAL, loop=0.1, steady=0.1),
    Style("piano chords", 1.5, (
        Part("block", families=PIANO, centre=56, density=(0.1, 0.6)),
        Part("melody", 0.9, same=0, level=2, centre=72),
    ), flat=0.0, harmony=CLASSICAL, loop=0.1, steady=0.2),
    Style("piano voices", 1.0, (
        Part("melody", families=PIANO, centre=74, density=(0.3, 0.9)),
        Part("counter", same=0, centre=60, density=(0.2, 0.8)),
        Part("bass", 0.5, same=0, centre=43),
    ), flat=0.0, harmony=CLASSICAL, loop=0.1, steady=0.1),
    Style("guitar solo", 1.0, (
        Part("figure", families=(("guitar", 3), ("harp", 1)), centre=55),
        Part("melody", 0.7, same=0, level=1, centre=70),
    ), flat=0.0, harmony=CLASSICAL, loop=0.2, steady=0.2),
    Style("singer", 1.5, (
        Part("figure", families=(("piano", 5), ("guitar", 1)), centre=56),
        Part("melody", families=(("voice", 3), ("oboe", 1), ("bowed_solo", 2)), level=1, centre=68),
    ), flat=0.0, harmony=CLASSICAL, loop=0.1, steady=0.1),
)  # fmt: skip
CYCLES: tuple[Style, ...] = (
    Style("usul", 6.0, (
        Part("cycle"),
        Part("melody", 0.8, FOLK, level=-1, centre=67, density=(0.1, 0.7)),
        Part("double", 0.4, same=1, level=-4, centre=60),
        Part("drone", 0.3, PADS, level=-10),
    ), (("steady", 2), ("human", 3)), 0.1, (("static", 3), ("bar", 2)), 0.4, 0.6),
    Style("long theka", 3.0, (
        Part("theka"),
        Part("drone", 0.8, (("tanpura", 4), ("reed", 1)), level=-4),
        Part("melody", 0.6, FOLK, level=-2, centre=66),
    ), (("machine", 1), ("steady", 2), ("human", 2)), 0.2, (("static", 3), ("bar", 1)), 0.5, 0.9),
)  # fmt: skip
DANCING: tuple[Style, ...] = (
    Style("folk dance", 3.0, (
        Part("figure", 0.9, (("guitar", 2), ("reed", 3), ("plucked", 1), ("piano", 2)), level=-4, centre=57),
        Part("melody", families=FOLK, centre=72),
        Part("bass", 0.5, BASSES, level=-2, centre=40),
        Part("drums", 0.45, ensemble="frame", level=-3),
    ), (("machine", 1), ("steady", 2), ("human", 3)), 0.15, loop=0.4),
    Style("dance at the piano", 2.5, (
        Part("figure", families=PIANO, centre=55),
        Part("melody", 0.95, same=0, level=2, centre=74),
    ), (("machine", 2), ("steady", 2), ("human", 2), ("rubato", 0.7)), 0.4, CLASSICAL, 0.2, 0.2),
    Style("dance for orchestra", 2.0, (
        Part("figure", 0.9, (("strings", 3), ("pizzicato", 2), ("brass", 1)), level=-3, centre=58),
        Part("melody", families=(("strings", 2), ("clarinet", 1), ("flute", 1), ("brass", 2)), centre=74),
        Part("bass", 0.8, (("upright", 2), ("pizzicato", 2), ("strings", 1)), centre=40),
        Part("drums", 0.5, ensemble="orchestral", level=-3),
    ), (("machine", 1), ("steady", 3), ("human", 2)), 0.2, CLASSICAL, 0.2, 0.2),
    Style("dance with drums", 2.0, (
        Part("drums", ensemble="darbuka"),
        Part("melody", 0.8, FOLK, level=-1, centre=70),
        Part("figure", 0.4, (("guitar", 2), ("reed", 1)), level=-5, centre=57),
    ), (("machine", 1), ("human", 3)), 0.1, loop=0.4),
    Style("dance band", 1.5, (
        Part("drums", ensemble="kit"),
        Part("bass", 0.9, BASSES, centre=40),
        Part("figure", 0.8, (("guitar", 2), ("piano", 2), ("organ", 1)), level=-4, centre=57),
        Part("melody", 0.8, (("voice", 2), ("brass", 2), ("lead", 1)), centre=69),
    ), loop=0.6),
)  # fmt: skip
# One layer of two: each has instruments of its own.
LAYERS: tuple[tuple[tuple[Part, ...], float], ...] = (
    ((Part("drums", ensemble="kit"),), 1.5),
    ((Part("drums", ensemble="hands"),), 1.5),
    ((Part("drums", ensemble="machine"),), 1.0),
    ((Part("cycle"),), 1.0),
    ((Part("click"),), 0.7),
    ((Part("riff", families=ANY, centre=60, density=(0.2, 0.8)),), 2.0),
    ((Part("riff", families=BASSES, centre=40, density=(0.1, 0.6)),), 1.0),
    ((Part("riff", families=ANY, centre=72, density=(0.2, 0.8)), Part("pad", families=PADS, level=-9)), 1.0),
    ((Part("figure", families=(("piano", 3), ("guitar", 2), ("mallet", 2)), centre=57),), 1.5),
)
TWO_LAYERS = Style("two layers", 1.0, tuple(part for parts, _ in LAYERS for part in parts), loop=0.9)
PAIRS = (("polymeter", 3.0), ("polyrhythm", 3.0), ("hemiola", 1.0))
FormOf = Callable[[np.random.Generator, int, SynthOptions], tuple[Form, float]]


@dataclass(frozen=True)
class Slice:
    """`weight`: share of the mix `hard`. `rubato`: how deep the tempo may bend (shallowest, deepest), None:
    the feels of the style. `disguised`: single bars that sound like another meter. `layered`: two layers of
    instruments that repeat what each begins with; `pairs`: in two meters."""

    weight: float
    options: SynthOptions = ONE_METER
    styles: tuple[Style, ...] = STYLES
    form_of: FormOf = draw_form
    rubato: tuple[float, float] | None = None
    disguised: bool = False
    layered: bool = False
    pairs: bool = False


SLICES: dict[str, Slice] = {
    "plain": Slice(0.24),
    "slow": Slice(
        0.22,
        replace(ONE_METER, bar_seconds=(4.5, 12.0), tempo=(20.0, 240.0)),
        (*STYLES, *CYCLES),
    ),
    "rubato": Slice(0.18, replace(ONE_METER, bar_seconds=(0.9, 6.0)), SOLO, rubato=(0.05, 0.5)),
    "dance": Slice(0.16, ONE_METER, DANCING, draw_dance),
    "disguised": Slice(0.08, disguised=True),
    "pairs": Slice(0.12, ONE_METER, (TWO_LAYERS,), layered=True, pairs=True),
    "layers": Slice(0.0, ONE_METER, (TWO_LAYERS,), layered=True),
}
# Share of each slice in the mixes that have slices. Two layers alone must not give two meters away.
SLICE_MIXES: dict[str, dict[str, float]] = {
    "hard": {name: row.weight for name, row in SLICES.items() if row.weight},
    "layers": {"pairs": 0.5, "layers": 0.5},
}


def draw_slice(seed: int, mix: str = "hard") -> str:
    """The slice of a clip of one of SLICE_MIXES."""
    return pick(stream(seed, "slice"), list(SLICE_MIXES[mix].items()))


def draw_seconds(seed: int, longest: float) -> float:
    """The length of a clip of these mixes: three in five as long as can be, the others 3 s and more."""
    rng = stream(seed, "length")
    short = rng.random() < 0.4 and longest > 3
    return round(float(np.exp(rng.uniform(np.log(3.0), np.log(longest)))), 2) if short else longest


def render_slice(
    seed: int,
    name: str,
    *,
    meter: int | None = None,
    seconds: float = 30.0,
    sample_rate: int = 24000,
    rubato: float | None = None,
) -> Clip:
    """Render the clip of a seed in a slice: the same bytes in any process and any order.

    meter: fix the primary class; None draws it. rubato: fix how far the tempo bends from its median (0 to 1;
    of the slice `rubato` alone). Raises ConfigError for what there is not.
    """
    if name not in SLICES:
        raise ConfigError(f"there is no slice {name!r}", nearest(name, list(SLICES)))
    row = SLICES[name]
    if rubato is not None and (row.rubato is None or not 0 <= rubato <= 1):
        raise ConfigError(f"rubato must be 0 to 1 and is of the slice rubato, got {rubato} for {name}")
    if name == "plain":
        return render(seed, meter=meter, seconds=seconds, sample_rate=sample_rate)
    if meter is not None and meter not in METERS:
        raise ConfigError(f"meter must be one of {METERS}, got {meter}")
    kinds = [kind for kind in PAIRS if kind[0] != "hemiola" or meter in (None, 3, 4)]
    kind = pick(stream(seed, "kind"), kinds) if row.pairs else "single"
    style = pick(stream(seed, "style"), [(s, s.weight) for s in row.styles])
    meters = draw_meters(stream(seed, "meter"), meter, kind, seconds, row.options, row.form_of)
    if row.pairs:
        meters = _apart(stream(seed, "phase"), meters)
    rng = stream(seed, "piece")
    phrases = draw_phrases(rng, meters.first, steady=rng.random() < style.steady)
    origin = float(rng.uniform(0, meters.first.pulses)) if rng.random() < row.options.cut else 0.0
    timing, depth = _timing(rng, row, style, meters, phrases, origin, rubato)
    whole = (0.0, seconds)
    if row.layered:
        audio, chords = _two_layers(seed, meters, phrases, timing, seconds, sample_rate), None
    else:
        audio, chords = _perform(seed, row, style, meters, phrases, timing, seconds, sample_rate)
    audio = apply_effects(audio, stream(seed, "effects"), row.options, sample_rate)
    clip = clip_of(seed, audio, sample_rate, seconds, whole, style, meters, phrases, timing, chords)
    return replace(clip, slice=name, rubato=depth)


def _timing(
    rng: np.random.Generator,
    row: Slice,
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    origin: float,
    rubato: float | None,
) -> tuple[Timing, float]:
    starts = meters.first.starts
    ends = np.array([starts[phrase.first + phrase.bars] for phrase in phrases])
    if row.rubato is None:
        feel = pick(rng, style.feels)
        swing = float(rng.uniform(0.52, 0.66)) if _may_swing(meters) and rng.random() < 0.12 else 0.5
        timing = draw_timing(
            rng, feel=feel, pulse=meters.pulse, bars=starts, phrases=ends, origin=origin, swing=swing
        )
        return timing, 0.0
    drawn = float(rng.uniform(*row.rubato))
    depth = drawn if rubato is None else rubato
    closing = np.array([starts[phrase.first + phrase.bars] for phrase in phrases if phrase.closing])
    timing = draw_rubato(
        rng, pulse=meters.pulse, bars=starts, phrases=ends, closing=closing, origin=origin, depth=depth
    )
    return timing, round(depth, 4)


def _may_swing(meters: Meters) -> bool:
    return meters.kind == "single" and meters.first.division % 2 == 0 and meters.pulse / 2 > 0.12


def _perform(
    seed: int,
    row: Slice,
    style: Style,
    meters: Meters,
    phrases: list[Phrase],
    timing: Timing,
    seconds: float,
    rate: int,
) -> tuple[Audio, FloatArray]:
    rng, hands = stream(seed, "players"), stream(seed, "hands")
    layout, harmony_rng = meters.first, stream(seed, "harmony")
    harmony = draw_harmony(
        harmony_rng, layout, phrases, rhythm=pick(rng, style.harmony), loop=rng.random() < style.loop
    )
    dynamics = draw_dynamics(rng, flat=rng.random() < style.flat)
    parts = [part for part in style.parts if rng.random() < part.chance] or [style.parts[0]]
    dance = BY_NAME.get(meters.form.name)
    pedal = row.rubato is not None and hands.random() < 0.6
    changes = np.unique(np.concatenate([layout.starts, harmony.starts]))
    disguise = one_of(hands, DISGUISES) if row.disguised else None
    out = np.zeros(round(seconds * rate), dtype=np.float32)
    sounds = Sounds(style, rate)
    for number, part in enumerate(parts):
        own = stream(seed, f"part {number}")
        player = Player(part, layout, phrases, harmony, meters.pulse, dynamics, style.loop < 0.3, dance)
        table = notes_of(own, stream(seed, f"part {max(0, number - 1)}"), player, parts, number).table()
        table = resting(own, table, phrases, layout, part, len(parts))
        if dance is not None:
            table = stressed(stream(seed, "stress"), table, layout, dance)
        if disguise is not None and part.role not in PERCUSSION and len(table):
            table = disguise(stream(seed, "disguise"), table, layout, phrases, 0.5)
        if row.rubato is not None:
            touch = draw_touch(hands, part.role == "melody", pedal)
            table = touch(hands, table, meters.pulse, changes)
        level = 10 ** ((part.level + rng.normal(0, 2.5)) / 20) * (0.7 if part.role in PERCUSSION else 1.0)
        mix(out, own, table, timing, sounds.of(own, part, table), level, (0.0, seconds), rate)
    return out, changes_of(harmony, parts)


def _apart(rng: np.random.Generator, meters: Meters) -> Meters:
    """Two meters that are both heard: the second is labelled at 0.75 and more, and its bars begin at any
    pulse of the first's (of a polymeter), or together or half a beat late (of a polyrhythm)."""
    second = meters.second
    assert second is not None
    by = float(rng.integers(second.pulses)) if meters.kind != "polyrhythm" else 0.5 * (rng.random() < 0.2)
    second = replace(second, starts=second.starts - by * second.unit)
    other = next(name for name in meters.weights if name != meters.primary)
    weights = {meters.primary: 1.0, other: round(float(rng.uniform(0.75, 1.0)), 3)}
    return replace(meters, second=second, weights=weights)


def _two_layers(
    seed: int, meters: Meters, phrases: list[Phrase], timing: Timing, seconds: float, rate: int
) -> Audio:
    """Both meters, or the one twice, from beginning to end, each on instruments of its own, equally loud
    within 4 dB."""
    rng = stream(seed, "players")
    other = meters.second or meters.first
    first = pick(rng, LAYERS)
    second = pick(rng, [row for row in LAYERS if row[0] is not first])
    harmony = draw_harmony(
        stream(seed, "harmony"),
        meters.first,
        phrases,
        rhythm=one_of(rng, ("static", "static", "bar")),
        loop=True,
    )
    out = np.zeros(round(seconds * rate), dtype=np.float32)
    plans = (
        (meters.first, phrases, first, 0.0),
        (
            other,
            draw_phrases(stream(seed, "second"), other, steady=True),
            second,
            float(rng.uniform(-4, 4)),
        ),
    )
    for layer, (layout, bars, parts, level) in enumerate(plans):
        dynamics = Dynamics(float(rng.uniform(0.25, 0.8)), float(rng.uniform(0.02, 0.1)), 0.0)
        sounding = np.zeros_like(out)
        for number, part in enumerate(parts):
            own = stream(seed, f"layer {layer} part {number}")
            player = Player(part, layout, bars, harmony, meters.pulse * layout.unit, dynamics, False)
            table = notes_of(own, own, player, list(parts), number).table()
            sounds = Sounds(TWO_LAYERS, rate).of(own, part, table)
            mix(sounding, own, table, timing, sounds, 10 ** (part.level / 20), (0.0, seconds), rate)
        loudness = float(np.sqrt(np.mean(sounding**2)))
        if loudness > 0:
            out += sounding * np.float32(0.1 * 10 ** (level / 20) / loudness)
    return out
