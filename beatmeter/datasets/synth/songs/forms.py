"""The forms of whole songs, as a table: which sections follow one another, how long they are, in which
styles and tempi.

A form is a line of sections `letter:function?chance`. Equal letters are the same material; the function may
be left out (forms that have none), and so may the chance (always there). Equal entries of a line are there,
or left out, together. To add a form, add a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.forms import FORMS, Form
from beatmeter.errors import ConfigError

SECONDS = (120.0, 300.0)  # of a song
CANDIDATES = 60  # plans among which the length of a song decides
Weights = tuple[tuple[str, float], ...]

# Lengths of sections in bars with their weights: counts on the Harmonix set (912 songs), and on its dance
# tracks.
LENGTHS: tuple[tuple[int, float], ...] = (
    (8, 41), (16, 12), (4, 12), (12, 5), (9, 4), (7, 4), (10, 3), (6, 2), (17, 2),
    (5, 2), (20, 1.5), (24, 1), (14, 1), (11, 1), (13, 1), (18, 1), (15, 1), (3, 1), (2, 1),
)  # fmt: skip
DANCE_LENGTHS: tuple[tuple[int, float], ...] = (
    (8, 43), (16, 18), (4, 8), (9, 5), (12, 4), (32, 3), (24, 2), (20, 2), (7, 3), (17, 3), (10, 2), (6, 2),
    (15, 2), (5, 1), (14, 1), (3, 1),
)  # fmt: skip
# How much longer, in bars, a letter is when it comes back, where it does not come back as it was.
CHANGES: tuple[tuple[int, float], ...] = (
    (1, 2.0),
    (-1, 1.5),
    (2, 1.0),
    (4, 1.5),
    (-2, 0.7),
    (-4, 1.0),
    (8, 0.8),
)

FOURS: Weights = (("4/4", 10), ("4/4 2+2", 2))
POP_METERS: Weights = (("4/4", 14), ("4/4 2+2", 4), ("6/8", 1.2), ("3/4", 0.8), ("12/8", 0.8))
# Slow songs move in eighths and sixteenths of the beat: those of "4/4 in eighths" have figures, motifs and
# basses of so many notes as others have in quarters.
SLOW: Weights = (("4/4 in eighths", 6), ("4/4", 4), ("6/8", 0.8), ("12/8", 0.6), ("3/4", 0.4))
SLOW_METERS: Weights = (
    ("4/4 in eighths", 5),
    ("4/4", 3),
    ("16/8", 2),
    ("12/8", 0.6),
    ("6/8", 0.6),
    ("3/4", 0.6),
)
FAST_METERS: Weights = (("4/4", 6), ("4/4 2+2", 3), ("4/4 in eighths", 2), ("3/4", 1), ("6/8", 0.6))
MIXED: Weights = (
    ("4/4", 5),
    ("4/4 2+2", 3),
    ("3/4", 4),
    ("6/8", 2),
    ("12/8", 0.7),
    ("5/4 3+2", 0.4),
    ("7/8 2+2+3", 0.4),
    ("5/8 3+2", 0.2),
)


@dataclass(frozen=True)
class SongForm:
    """lines: lines of sections, drawn evenly. styles: weights of `styles.STYLES`. tempo: felt beats per
    minute, lowest and highest.

    meters: weights of `synth.forms.FORMS` by name. shared: chance that a letter takes its chords from an
    earlier one. contrast: how far sections may differ in level, 0-1. dance: lengths and transitions of
    dance tracks. Forms of weight 0 are not drawn.
    """

    name: str
    weight: float
    lines: tuple[str, ...]
    styles: Weights
    tempo: tuple[float, float]
    meters: Weights = POP_METERS
    shared: float = 0.2
    contrast: float = 0.8
    dance: bool = False


@dataclass(frozen=True)
class Planned:
    """A section before it sounds. bars: its length."""

    letter: str
    function: str
    bars: int


POP_STYLES: Weights = (
    ("band", 5),
    ("song", 2.5),
    ("piano", 2.5),
    ("machine", 1.5),
    ("plucked", 1),
    ("blocks", 0.7),
    ("orchestra", 0.5),
)
SCORED_STYLES: Weights = (
    ("piano", 4),
    ("quartet", 2),
    ("orchestra", 2),
    ("song", 1.5),
    ("counterpoint", 1),
    ("plucked", 1),
)

SLOW_STYLES: Weights = (
    ("piano", 4),
    ("song", 4),
    ("band", 1.5),
    ("plucked", 1),
    ("orchestra", 1),
    ("quartet", 1),
    ("blocks", 1),
)

QUIET_STYLES: Weights = (("piano", 5), ("song", 4), ("plucked", 1.5), ("blocks", 1.5), ("quartet", 1))

POP_LINES: tuple[str, ...] = (
    (
        "i:intro?.9 A:verse A:verse?.6 B:pre-chorus?.5 C:chorus x:instrumental?.3 A:verse "
        "A:verse?.3 B:pre-chorus?.5 C:chorus D:bridge?.6 C:chorus C:chorus?.6 o:outro?.7"
    ),
    (
        "i:intro?.9 A:verse A:verse?.6 C:chorus x:instrumental?.6 A:verse C:chorus "
        "C:chorus?.3 x:instrumental?.6 D:bridge?.5 C:chorus C:chorus?.5 o:outro?.6"
    ),
    (
        "C:chorus?.6 A:verse B:pre-chorus?.7 C:chorus C:chorus?.4 A:verse B:pre-chorus?.7 "
        "C:chorus D:bridge C:chorus C:chorus?.5 o:outro?.5"
    ),
    (
        "i:intro A:verse A:verse B:chorus B:chorus?.5 x:instrumental?.7 A:verse A:verse?.4 "
        "B:chorus B:chorus?.6 i:outro?.5"
    ),
)

BALLAD_LINES: tuple[str, ...] = (
    (
        "i:intro?.9 A:verse A:verse?.5 B:pre-chorus?.5 C:chorus x:instrumental?.5 A:verse "
        "B:pre-chorus?.5 C:chorus D:bridge?.5 C:chorus o:outro?.7"
    ),
    "i:intro?.8 A:verse C:chorus A:verse C:chorus x:instrumental?.5 C:chorus?.7 o:outro?.5",
    ("i:intro?.7 A:verse A:verse B:bridge A:verse x:instrumental?.4 B:bridge?.6 A:verse?.61 o:outro?.4"),
)

SONG_FORMS: tuple[SongForm, ...] = (
    SongForm(
        "pop",
        4.0,
        POP_LINES,
        POP_STYLES,
        (62, 150),
        shared=0.45,
    ),
    SongForm(
        "dance",
        2.4,
        (
            (
                "i:intro A:verse?.5 B:build-up C:drop C:drop?.5 D:break A:verse?.5 B:build-up C:drop "
                "C:drop?.6 o:outro?.9"
            ),
            (
                "i:intro i:intro?.4 D:break?.6 B:build-up C:drop x:instrumental?.4 D:break "
                "B:build-up C:drop E:drop?.5 o:outro"
            ),
            (
                "i:intro C:drop?.5 D:break B:build-up C:drop C:drop?.4 D:break E:build-up F:drop "
                "F:drop?.5 o:outro?.8"
            ),
            ("i:intro A:verse B:build-up C:drop A:verse B:build-up C:drop D:break B:build-up?.7 C:drop"),
        ),
        (("machine", 6), ("loops", 1), ("band", 0.7), ("ostinato", 0.7)),
        (112, 176),
        FOURS,
        0.8,
        0.9,
        dance=True,
    ),
    SongForm(
        "ballad",
        0.0,  # by name only: the songs of a seed stay what they are
        BALLAD_LINES,
        SLOW_STYLES,
        (54, 108),
        SLOW,
        0.4,
        0.7,
    ),
    # Songs that move in eighths or sixteenths, by name only: what sounds between two beats is what most
    # often makes them be heard at twice their tempo.
    SongForm(
        "eighths",
        0.0,
        POP_LINES,
        POP_STYLES,
        (62, 170),
        (("4/4 in eighths", 10), ("12/8", 1), ("6/8", 1)),
        0.45,
    ),
    SongForm("sixteenths", 0.0, POP_LINES, SLOW_STYLES, (52, 118), (("16/8", 1),), 0.45),
    # The same players without drums, slow and fast, by name only: a metre that no drum beats, in which what
    # a beat is follows from chords and figures.
    SongForm("slow", 0.0, BALLAD_LINES, QUIET_STYLES, (54, 86), SLOW_METERS, 0.4, 0.7),
    SongForm("fast", 0.0, POP_LINES, QUIET_STYLES, (108, 184), FAST_METERS, 0.4, 0.7),
    SongForm(
        "strophic",
        1.2,
        (
            (
                "i:intro?.6 A:verse A:verse A:verse x:instrumental?.5 A:verse A:verse?.6 A:verse?.4 "
                "A:verse?.31 A:verse?.3 o:outro?.4"
            ),
            (
                "i:intro?.6 A:verse R:chorus A:verse R:chorus A:verse R:chorus A:verse?.6 "
                "R:chorus?.61 A:verse?.3 R:chorus?.3 o:outro?.3"
            ),
        ),
        (
            ("song", 2),
            ("plucked", 2),
            ("piano", 1.5),
            ("dance", 1.5),
            ("tune", 0.7),
            ("blocks", 1),
            ("band", 1),
        ),
        (58, 150),
        MIXED,
        0.45,
        0.6,
    ),
    SongForm(
        "aaba",
        1.0,
        (
            "i?.4 A A B A A?.8 A?.79 B?.8 A?.81 B?.4 A?.41 o?.4",
            "A A B A A A B A A?.5 B?.5 A?.51",
            "i?.5 A B A C?.6 A?.6 B A o?.4",
        ),
        (("jazz", 2), ("song", 2), ("piano", 2), ("band", 1), ("quartet", 0.7)),
        (60, 200),
        POP_METERS,
        0.3,
        0.5,
    ),
    SongForm(
        "rondo",
        0.7,
        (
            "A B A C A D?.6 A?.6 o?.4",
            "A B A C A B A o?.4",
        ),
        SCORED_STYLES,
        (60, 160),
        MIXED,
        0.25,
        0.6,
    ),
    SongForm(
        "through-composed",
        0.7,
        (
            "A B C D E F?.8 G?.6 H?.5 I?.4 J?.3",
            "i?.5 A B C D B?.5 E?.8 F?.6 G?.5 o?.5",
        ),
        SCORED_STYLES,
        (56, 150),
        MIXED,
        0.2,
        0.6,
    ),
)


def draw_song_form(rng: np.random.Generator, name: str | None = None) -> SongForm:
    """The form of a name, or one drawn by weight."""
    return form_named(name) if name else pick(rng, [(form, form.weight) for form in SONG_FORMS])


def form_named(name: str) -> SongForm:
    """The row of a name. Raises ConfigError for a name that is none."""
    for form in SONG_FORMS:
        if form.name == name:
            return form
    raise ConfigError(f"there is no form {name!r}", f"Forms: {', '.join(form.name for form in SONG_FORMS)}.")


@dataclass(frozen=True)
class Plan:
    """Sections with the meter and the pulse in seconds that they are played in."""

    sections: tuple[Planned, ...]
    meter: Form
    pulse: float

    @property
    def bars(self) -> int:
        """Bars of the whole song."""
        return sum(section.bars for section in self.sections)


def draw_plan(rng: np.random.Generator, form: SongForm, seconds: tuple[float, float] = SECONDS) -> Plan:
    """Draw meter, tempo and sections: of CANDIDATES, what is nearest to a drawn length among `seconds`
    (lowest, highest). Raises ConfigError when nothing fits."""
    low, high = seconds
    wanted = low + (high - low) * float(rng.beta(2.5, 2.0))
    best: tuple[float, Plan] | None = None
    for _ in range(CANDIDATES):
        name = pick(rng, form.meters)
        meter = next(row for row in FORMS if row.name == name)
        slow, fast = form.tempo
        beat = 60.0 / float(np.exp(rng.uniform(np.log(slow), np.log(fast))))
        felt = len(meter.groups) if meter.unit == "eighth" else meter.pulses
        plan = Plan(tuple(_draw_sections(rng, form)), meter, beat * felt / meter.pulses)
        length = plan.bars * meter.pulses * plan.pulse
        if (
            len(plan.sections) > 2
            and low <= length <= high
            and (best is None or abs(length - wanted) < best[0])
        ):
            best = abs(length - wanted), plan
    if best is None:
        raise ConfigError(f"no song of the form {form.name} lasts {low:g} to {high:g} s")
    return best[1]


def _draw_sections(rng: np.random.Generator, form: SongForm) -> list[Planned]:
    """Sections of one of the lines, with lengths: a letter mostly comes back as long as it was."""
    table = DANCE_LENGTHS if form.dance else LENGTHS
    line = form.lines[int(rng.random() * len(form.lines))]
    present: dict[str, bool] = {}
    usual: dict[str, int] = {}
    sections: list[Planned] = []
    for entry in line.split():
        head, _, chance = entry.partition("?")
        if entry not in present:
            present[entry] = not chance or rng.random() < float(chance)
        if not present[entry]:
            continue
        letter, _, function = head.partition(":")
        bars = usual.setdefault(letter, pick(rng, table))
        if any(section.letter == letter for section in sections) and rng.random() < 0.2:
            bars = max(2, bars + pick(rng, CHANGES))
        sections.append(Planned(letter, function, bars))
    return sections
