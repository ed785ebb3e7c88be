"""Dances and marches: forms with a tempo, a rhythm and an accompaniment of their own; one row each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.forms import Form
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.timing import Layout


@dataclass(frozen=True)
class Dance:
    """`bar`: shortest and longest bar in seconds. `rhythms`: bars of the melody, `x` an onset, in steps of
    equal length. `figures`: names of `patterns.FIGURES`. `stress`: pulses of the bar that may be loud."""

    form: Form
    bar: tuple[float, float]
    rhythms: tuple[str, ...]
    figures: tuple[str, ...]
    stress: tuple[int, ...] = ()


def _dance(
    name: str,
    meter: int,
    groups: str,
    unit: str,
    bar: tuple[float, float],
    rhythms: str,
    figures: str,
    weight: float = 1.0,
    stress: tuple[int, ...] = (),
) -> Dance:
    parts = tuple(int(part) for part in groups.split("+"))
    return Dance(
        Form(meter, name, parts, unit, weight),
        bar,
        tuple(rhythms.split()),
        tuple(figures.split(", ")),
        stress,
    )


TRIPLE = "x.x.x. x..xx. x...x. xxxxxx x.xxx."
DANCES: tuple[Dance, ...] = (
    _dance(
        "jig",
        3,
        "3+3",
        "eighth",
        (0.6, 1.2),
        "xxxxxx x.xxxx x.xx.x xxxx.x xxxx..",
        "boom-chick, oom-pah, held bass",
        2.0,
    ),
    _dance(
        "tarantella",
        3,
        "3+3",
        "eighth",
        (0.5, 1.0),
        "xxxxxx xxxx.. x.xx.x x..xxx",
        "oom-pah, after-beats",
        1.5,
    ),
    _dance(
        "barcarolle", 3, "3+3", "eighth", (1.2, 2.4), "x..x.x x.xx.. x....x", "rolled, held bass, long-short"
    ),
    _dance(
        "siciliana", 3, "3+3", "eighth", (1.4, 3.0), "x..xx.x.x... x..xx.x..xx.", "siciliano, held bass", 0.7
    ),
    _dance(
        "slip jig",
        3,
        "3+3+3",
        "eighth",
        (0.9, 1.7),
        "xxxxxxxxx x.xxxxx.x x.xx.xxx.",
        "boom-chick, oom-pah",
        0.7,
    ),
    _dance("passepied", 3, "3", "eighth", (0.45, 0.9), TRIPLE, "oom-pah, held bass", 1.0),
    _dance("fast waltz", 3, "3", "quarter", (0.75, 1.3), TRIPLE, "oom-pah, octave oom-pah, after-beats", 1.5),
    _dance(
        "mazurka",
        3,
        "3",
        "quarter",
        (1.0, 1.9),
        "x..xx...x... xx.xx. x.xxx. xxxx.. x.x.xx",
        "mazurka, oom-pah",
        1.2,
        (1, 2),
    ),
    _dance(
        "polonaise",
        3,
        "3",
        "quarter",
        (1.8, 3.2),
        "x.xxx.x.x.x. x...xxxxx.x. x..xx.x.xxxx",
        "polonaise, bass and chord",
        1.2,
    ),
    _dance(
        "march",
        4,
        "2",
        "quarter",
        (0.8, 1.3),
        "x.x. x..x xxx. x.xx xxxx",
        "oom-pah, boom-chick, octave oom-pah",
        2.0,
    ),
    _dance(
        "slow march", 4, "2+2", "quarter", (1.6, 3.0), "x..xx.x. x...x.xx x..xx..x", "bass and chord, oom-pah"
    ),
    _dance("polka", 4, "2", "quarter", (0.7, 1.1), "xxxx x.xx xxx. xx.x", "oom-pah, boom-chick", 1.5),
    _dance("galop", 4, "2", "quarter", (0.6, 0.9), "x.xx xxxx x..x", "oom-pah, after-beats"),
    _dance(
        "reel",
        4,
        "2+2",
        "quarter",
        (0.9, 1.5),
        "xxxxxxxx x.xxxxxx xxx.xxx. xxxxxxx.",
        "boom-chick, oom-pah",
        1.5,
    ),
    _dance(
        "hornpipe", 4, "2+2", "quarter", (1.2, 2.0), "x..xx..xx..x x..xx..x....", "oom-pah, boom-chick", 0.7
    ),
    _dance(
        "fast 12/8",
        4,
        "3+3+3+3",
        "eighth",
        (1.1, 2.2),
        "xxxxxxxxxxxx x.xx.xx.xx.x x..x.xx..xxx",
        "oom-pah, boom-chick, rolled",
        1.5,
    ),
    _dance(
        "gallop 12/8",
        4,
        "3+3+3+3",
        "eighth",
        (1.4, 2.6),
        "x.xx.xx.xx.. x..x..x.xx.x",
        "long-short, after-beats",
        0.7,
    ),
    _dance(
        "paidushko", 5, "2+3", "eighth", (0.6, 1.2), "xxxxx x.x.. x.xxx xxx.x", "oom-pah, boom-chick", 2.0
    ),
    _dance("fast five", 5, "3+2", "eighth", (0.7, 1.4), "xxxxx x..x. x.xx. xxxx.", "oom-pah, after-beats"),
    _dance(
        "five-four waltz",
        5,
        "3+2",
        "quarter",
        (1.3, 2.4),
        "x.x.x.x.x. x...x.x.x. x..xx.x.xx",
        "oom-pah, held bass",
    ),
    _dance(
        "rachenitsa",
        7,
        "2+2+3",
        "eighth",
        (0.7, 1.4),
        "xxxxxxx x.x.x.x x.xxx.. xxx.x..",
        "oom-pah, boom-chick",
        2.0,
    ),
    _dance(
        "kalamatianos",
        7,
        "3+2+2",
        "eighth",
        (1.1, 2.0),
        "x..x.x. x.xx.x. x..xxxx xxxxxxx",
        "oom-pah, long-short",
        1.5,
    ),
    _dance(
        "chetvorno", 7, "3+2+2", "eighth", (0.7, 1.3), "xxxxxxx x.xx.x. xxxx.xx", "boom-chick, after-beats"
    ),
    _dance(
        "daichovo",
        9,
        "2+2+2+3",
        "eighth",
        (0.9, 1.8),
        "xxxxxxxxx x.x.x.x.. x.xxx.x.x",
        "oom-pah, boom-chick",
        2.0,
    ),
    _dance(
        "zeibekiko",
        9,
        "2+2+2+3",
        "eighth",
        (2.2, 4.5),
        "x.xxx.x.. x.x.xxx.. x..xx.x.x",
        "bass and chord, long-short",
        0.8,
    ),
    _dance(
        "grancharsko",
        9,
        "2+3+2+2",
        "eighth",
        (0.9, 1.7),
        "xxxxxxxxx x.x..x.x. xxx.xx.x.",
        "oom-pah, after-beats",
    ),
    _dance(
        "kopanitsa",
        11,
        "2+2+3+2+2",
        "eighth",
        (1.1, 2.1),
        "xxxxxxxxxxx x.x.x..x.x. xxx.x.xx.x.",
        "oom-pah, boom-chick",
        2.0,
    ),
    _dance(
        "fast eleven",
        11,
        "3+3+3+2",
        "eighth",
        (1.2, 2.4),
        "xxxxxxxxxxx x..x..x..x. x.xx.xx.xx.",
        "oom-pah, after-beats",
    ),
)
BY_NAME = {dance.form.name: dance for dance in DANCES}


def draw_dance(rng: np.random.Generator, meter: int, options: SynthOptions) -> tuple[Form, float]:
    """Draw (form, pulse in seconds) of a dance of this class."""
    dance = pick(rng, [(dance, dance.form.weight) for dance in DANCES if dance.form.meter == meter])
    bar = float(np.exp(rng.uniform(*np.log(dance.bar))))
    return dance.form, bar / dance.form.pulses


def stressed(rng: np.random.Generator, table: FloatArray, layout: Layout, dance: Dance) -> FloatArray:
    """The notes of a part, those on one of the dance's stressed pulses louder."""
    if not dance.stress or not len(table):
        return table
    pulse = dance.stress[int(rng.integers(len(dance.stress)))]
    inside = (table[:, 0] - layout.starts[0]) % layout.pulses
    table = table.copy()
    loud = np.abs(inside - pulse) < 1e-6
    table[loud, 3] = np.minimum(1.0, table[loud, 3] * 1.4)
    return table
