"""The declarative tables: drum patterns, accompaniment figures, contours and rhythm cells.

A drum pattern takes three lines::

    Pattern("waltz", "3", kick="x.....",
            snare="..o.o.",
            hat="x.x.x.")

The second argument is the grouping of the bars it fits ("2+2+3"; see `forms.FORMS`). Each string is one or
more whole bars; its length divided by the pulses of the bar gives its steps. `X` is loud, `x` normal, `o`
soft, `-` a ghost, `.` a rest; `|` and spaces are only for the eye. Voices are names of `hits.STROKES`.

An accompaniment figure is written per group length, so that one line serves every meter::

    Figure("oom-pah", {2: "b. / .c", 3: "b.. / .cc", 4: "b.f. / .c.c"}, {2: "f. / .c", 3: "f.. / .cc"})

The first table is for the first group of the bar, the second for later ones (the first again where it is
missing). Lanes are separated by `/`: `b` bass, `o` bass in octaves, `f` its fifth, `c` chord, `0`-`5` chord
tones from below, `-` holds the note before, `.` rests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.hits import STROKES
from beatmeter.errors import ConfigError

LEVELS = {"X": 1.0, "x": 0.8, "o": 0.5, "-": 0.28, ".": 0.0}


def _clean(text: str) -> str:
    return text.replace(" ", "").replace("|", "")


class Pattern:
    """One drum pattern; `voices` maps a stroke to (bar, tick) levels."""

    def __init__(self, name: str, groups: str, weight: float = 1.0, **voices: str) -> None:
        self.name, self.weight = name, weight
        self.groups = tuple(int(part) for part in groups.split("+"))
        pulses = sum(self.groups)
        self.voices: dict[str, FloatArray] = {}
        self.division = 1
        for voice, text in voices.items():
            steps = _clean(text)
            bars = 2 if len(steps) > 4 * pulses else 1
            if voice not in STROKES:
                raise ConfigError(f"pattern {name!r}: no stroke {voice!r} in hits.STROKES")
            if len(steps) % (pulses * bars) or set(steps) - set(LEVELS):
                raise ConfigError(
                    f"pattern {name!r}: {voice}={text!r} is no whole bar of {groups} in {''.join(LEVELS)}"
                )
            levels = np.array([LEVELS[step] for step in steps]).reshape(bars, -1)
            self.division = max(self.division, levels.shape[1] // pulses)
            self.voices[voice] = levels


PATTERNS: tuple[Pattern, ...] = (
    Pattern("rock", "4", 3, kick="x...x...", snare="..x...x.", hat="xxxxxxxx"),
    Pattern("rock 16", "4", 2, kick="x.....x. x.......", snare="....x.......x..-", hat="x.x.x.x.x.x.x.x."),
    Pattern("four on the floor", "4", 2, kick="x.x.x.x.", clap="..x...x.", open=".x.x.x.x"),
    Pattern("ballad", "4", kick="x.....x.", rim="..x...x.", hat="xxxxxxxx"),
    Pattern("shuffle", "4", kick="x.....x.....", snare="...x.....x..", ride="x.xx.xx.xx.x"),
    Pattern("bossa", "2+2", kick="x..xx..x", rim="x..x..x. ..x.x...", hat="xxxxxxxx"),
    Pattern("breakbeat", "4", kick="x.x.......xx....", snare="....x..-.-..x..-", hat="x.x.x.x.x.x.x.x."),
    Pattern(
        "clave",
        "4",
        block="x..x..x...x.x...",
        conga_low="..........xx..xx",
        conga_high="x...x...x.......",
        shaker="x.x.x.x.x.x.x.x.",
    ),
    Pattern("rumba", "4", block="x..x...x..x.x...", conga_low="......x...x...xx", cowbell="x.x.xx.x.xx.x.x."),
    Pattern("tumbao", "4", slap="....x...", conga_low="......xx", shaker="xoxoxoxo"),
    Pattern("cascara", "4", rim="x.x.xx.x.xx.x.xx", cowbell="x...x...x...x...", kick="x.....x."),
    Pattern("baiao", "2", kick="x..x..x.", triangle="oxXxoxXx", rim="..x..x.."),
    Pattern("one drop", "4", kick="....x...", rim="....x...", hat="x.xxx.xx"),
    Pattern("funk", "4", 2, kick="x..x......x..x..", snare="....x..-.-..x...", hat="xxxxxxxxxxxxxxxx"),
    Pattern("half time", "4", kick="x.......", snare="....x...", hat="x.x.x.x."),
    Pattern("train", "2", snare="oxXooxXo", kick="x...x..."),
    Pattern(
        "slow ballad", "2+2+2+2", 2, kick="x.......x.x.....", snare="....x.......x...", hat="x.x.x.x.x.x.x.x."
    ),
    Pattern("ballad rim", "2+2+2+2", kick="x.....x.", rim="..x...x.", hat="xxxxxxxx"),
    Pattern("march", "2", kick="x...", snare="..x.", hat="x.x."),
    Pattern("polka", "2", kick="x.x.", snare=".x.x"),
    Pattern("samba", "2", kick="x..xx..x", snare="x.xx.xx.", shaker="xoxoxoxo"),
    Pattern("tresillo", "3+3+2", kick="x..x..x.", rim="x..x..x.", hat="x.x.x.x."),
    Pattern("12/8 ballad", "3+3+3+3", kick="x.....x.....", snare="...x.....x..", hat="xxxxxxxxxxxx"),
    Pattern("bembe", "3+3+3+3", cowbell="x.x.xx.x.x.x", kick="x.....x.....", conga_high="..x..x..x..x"),
    Pattern("waltz", "3", 3, kick="x..", snare=".oo", hat="xxx"),
    Pattern("jazz waltz", "3", ride="x.x.xx", hat="..x...", kick="x....."),
    Pattern("rock 3", "3", 2, kick="x.....", snare="..x.x.", hat="xxxxxx"),
    Pattern("slow 3", "3", kick="x....x......", snare="....x...x...", hat="x.x.x.x.x.x."),
    Pattern("6/8", "3+3", 3, kick="x.....", snare="...x..", hat="xxxxxx"),
    Pattern("6/8 folk", "3+3", frame_low="x..x..", frame_high="..xo.x", tambourine="x..x.."),
    Pattern("6/8 sixteenths", "3+3", 2, kick="x.....x.....", snare="......x.....", hat="xxxxxxxxxxxx"),
    Pattern("6/8 rock", "3+3", 2, kick="x....x......", snare="......x.....", ride="x.x.x.x.x.x."),
    Pattern("festejo", "3+3", conga_low="x..x.x", slap="..x...", block="x.xx.x"),
    Pattern("jig", "3+3+3", kick="x........", snare="...x..x..", hat="x.xx.xx.x"),
    Pattern("slip", "3+3+3", frame_low="X..x..x..", frame_high="..o..o..o"),
    Pattern("take five", "3+2", 2, kick="x...x.x...", ride="x.x.xx.x.x", snare="......x..."),
    Pattern("five rock", "3+2", kick="x..x..x...", snare="..x.....x.", hat="xxxxxxxxxx"),
    Pattern("five of two", "2+3", kick="x.x.......", snare="..x...x.x.", hat="xxxxxxxxxx"),
    Pattern("paidushko", "2+3", 2, doum="x.x..", tek=".xoxo"),
    Pattern("kalamatianos", "3+2+2", 2, doum="x..x.x.", tek=".oxoxox"),
    Pattern("rachenitsa", "2+2+3", 2, doum="x.x.x..", tek=".x.x.xo"),
    Pattern("seven rock", "2+2+3", kick="x...x.x", snare="..x....", hat="x.x.x.x"),
    Pattern("seven slow", "4+3", 2, kick="x..x....x.....", snare="..x...x...x.x.", hat="x.x.x.x.x.x.x."),
    Pattern("seven machine", "3+4", kick="x.....x...x...", clap="..x.....x...x.", hat="xxxxxxxxxxxxxx"),
    Pattern("karsilama", "2+2+2+3", 2, doum="x.x.x.x..", tek=".x.x.xoxx"),
    Pattern("daichovo", "2+2+2+3", doum="x...x.x..", tek="..x..x.xo"),
    Pattern("nine after five", "5+4", kick="x....x..x", snare="..x....x.", hat="xxxxxxxxx"),
    Pattern("kopanitsa", "2+2+3+2+2", 2, doum="x.x.x..x.x.", tek=".o.o.xo.o.x"),
    Pattern("eleven rock", "3+3+3+2", kick="x.....x..x.", snare="...x.......", hat="x.xx.xx.xx."),
    Pattern("eleven slow", "4+4+3", kick="x...x...x..", snare="..x...x...x", hat="xxxxxxxxxxx"),
)


@dataclass(frozen=True)
class Figure:
    """One accompaniment figure; see the module's docstring. weight: how often it is drawn."""

    name: str
    first: dict[int, str]
    later: dict[int, str] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        cells = [(length, cell) for table in (self.first, self.later) for length, cell in table.items()]
        steps = {len(_clean(lane)) / length for length, cell in cells for lane in cell.split("/")}
        lanes = {cell.count("/") for _, cell in cells}
        symbols = {symbol for _, cell in cells for symbol in _clean(cell)} - set("bofc012345-./")
        if len(steps) != 1 or steps.pop() % 1 or len(lanes) != 1 or symbols:
            raise ConfigError(
                f"figure {self.name!r}: lanes must agree in number and in whole steps per pulse "
                f"{symbols or ''}"
            )

    @property
    def steps(self) -> int:
        """Steps per pulse."""
        length, cell = next(iter(self.first.items()))
        return len(_clean(cell.split("/")[0])) // length

    def lanes(self, length: int, *, first: bool) -> list[str]:
        """The lanes for a group of `length` pulses; long groups are built from 2s and 3s."""
        table = self.first if first else {**self.first, **self.later}
        if length in table:
            return [_clean(lane) for lane in table[length].split("/")]
        if length == 1:
            lanes = self.lanes(2, first=first)
            return [lane[: len(lane) // 2] for lane in lanes]
        head = 3 if length % 2 else 2
        front, back = self.lanes(head, first=first), self.lanes(length - head, first=False)
        return [one + two for one, two in zip(front, back, strict=True)]


FIGURES: tuple[Figure, ...] = (
    Figure("oom-pah", {2: "b. / .c", 3: "b.. / .cc", 4: "b.f. / .c.c"}, {2: "f. / .c", 3: "f.. / .cc"}, 3),
    Figure("octave oom-pah", {2: "o. / .c", 3: "o.. / .cc", 4: "o.o. / .c.c"}, weight=1.5),
    Figure("held bass", {2: "o- / .c", 3: "o-- / .cc", 4: "o--- / .ccc"}, {2: ".. / cc", 3: "... / ccc"}, 2),
    Figure("boom-chick", {1: "b. / .c", 2: "b.f. / .c.c", 3: "b.f.f. / .c.c.c"}, {1: "f. / .c"}),
    Figure(
        "bass and chord",
        {2: "b- / c-", 3: "b-- / c--", 4: "b-f- / c-c-"},
        {2: "f- / c-", 3: "f-- / c--"},
        1.5,
    ),
    Figure("long-short", {2: "b- / .c", 3: "b-f / c-c", 4: "b--f / c-.c"}, {3: "b.. / c-c"}, 1.5),
    Figure("alberti", {1: "02", 2: "0212", 3: "021212", 4: "02120212"}, weight=2),
    Figure("bass alberti", {1: "b. / .1", 2: "b--- / .212", 3: "b----- / .21212"}, {2: ".... / 0212"}, 1.5),
    Figure("rolled", {2: "b- / 02", 3: "b-- / 012", 4: "b--- / 0123"}, {2: ".. / 13", 3: "... / 321"}, 2),
    Figure(
        "rolled fast",
        {1: "b- / 02", 2: "b--- / 0123", 3: "b----- / 012345", 4: "b------- / 01234321"},
        weight=2,
    ),
    Figure("bass then roll", {2: "b-.. / .123", 3: "b-.... / .12321", 4: "b-...... / .1234321"}, weight=1.5),
    Figure("sarabande", {2: "b. / cc", 3: "b.. / cc-", 4: "b... / c.c-"}, weight=0.8),
    Figure("mazurka", {3: "b.... . / c.ccc.", 2: "b... / ..c.", 4: "b....... / ..c.c.c."}, weight=0.8),
    Figure(
        "polonaise",
        {
            3: "b........... / ..cccc.c.c..",
            2: "b....... / ..ccc.c.",
            4: "b... ........ .... / ..cc c.c.c.c.c...",
        },
    ),
    Figure("habanera", {2: "b.bb / ..c.", 3: "b..bb. / ..c.cc", 4: "b..bb.b. / ..c...c."}, weight=0.8),
    Figure("siciliano", {3: "b-- / c.c", 2: "b- / c.", 4: "b--- / c.cc"}, weight=0.8),
    Figure("bass only", {2: "b-", 3: "b--", 4: "b-f-"}, {2: "f-", 3: "f--"}, 0.6),
    Figure(
        "downbeat chord",
        {2: "b- / c-", 3: "b-- / c--", 4: "b--- / c---"},
        {2: "-- / --", 3: "--- / ---"},
        1.2,
    ),
    Figure(
        "after-beats",
        {1: ". / c", 2: "b. / .c", 3: "b.. / .cc", 4: "b... / .ccc"},
        {2: ".. / .c", 3: "... / .cc"},
        1.2,
    ),
)

# Chord tones by number, repeated from the start of every bar or group; "c" is the whole chord, "." a rest.
CONTOURS: tuple[tuple[str, float], ...] = (
    ("0123", 1.0),
    ("012", 1.5),
    ("01232", 0.5),
    ("0123454321", 0.8),
    ("0212", 1.0),
    ("02", 0.8),
    ("0312", 0.5),
    ("3210", 0.6),
    ("210", 0.6),
    ("0343", 0.5),
    ("c", 2.5),
    (".c", 1.0),
    ("c.", 0.5),
    ("0cc", 0.4),
    ("0c", 0.8),
    ("00", 0.3),
)

# Melodic rhythm inside a group, by its length in pulses; more steps than pulses subdivide.
CELLS: dict[int, tuple[tuple[str, float], ...]] = {
    1: (("x", 3), ("xx", 1.2), ("x.xx", 0.2), ("x..x", 0.3)),
    2: (
        ("x.", 3),
        ("xx", 3),
        ("x.xx", 1.5),
        ("x..x", 1.2),
        ("xxx.", 0.8),
        (".x", 0.4),
        ("xxxx", 0.8),
        (".xxx", 0.3),
    ),
    3: (
        ("x..", 2.5),
        ("x.x", 3),
        ("xx.", 1),
        ("xxx", 2.5),
        ("x..xxx", 0.8),
        ("x..x.x", 0.6),
        ("x.x.xx", 0.8),
        ("x.xxx.", 0.5),
        ("x..xx.", 0.6),
        (".xx", 0.5),
        ("..x", 0.3),
        ("xxxxxx", 0.5),
    ),
    4: (
        ("x.x.", 2),
        ("x...", 1.2),
        ("x..x", 1.5),
        ("x.xx", 2),
        ("xxx.", 1.2),
        ("xxxx", 2),
        ("xx.x", 0.5),
        ("x..xx.x.", 0.8),
        ("x.x.x.xx", 1),
        ("x..xx..x", 0.6),
        (".xxx", 0.4),
        ("x.xxxxx.", 0.6),
    ),
}
