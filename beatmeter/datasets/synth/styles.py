"""Who plays: the table of styles. To add one, add a row; `SynthOptions.style_weights` scales the weights."""

from __future__ import annotations

from dataclasses import dataclass

Weights = tuple[tuple[str, float], ...]

KEYS: Weights = (("piano", 6), ("old_piano", 2), ("electric_piano", 1), ("harpsichord", 0.8), ("organ", 0.6))
PLUCKED: Weights = (("guitar", 3), ("harp", 1), ("plucked", 2), ("harpsichord", 0.5))
SINGING: Weights = (
    ("voice", 3),
    ("oboe", 2),
    ("choir", 1),
    ("flute", 1.5),
    ("clarinet", 1),
    ("bowed_solo", 1.5),
)
BOWED: Weights = (("strings", 2), ("bowed_solo", 3), ("pizzicato", 0.6), ("piano", 0.6))
BASSES: Weights = (("bass", 3), ("upright", 2), ("synth_bass", 1))
SYNTHS: Weights = (
    ("lead", 2),
    ("synth_pluck", 3),
    ("pad", 1),
    ("electric_piano", 1),
    ("mallet", 1),
    ("blip", 0.0),
)
PADS: Weights = (("pad", 2), ("strings", 2), ("organ", 1), ("choir", 1), ("reed", 0.5))
FOLK: Weights = (
    ("reed", 2),
    ("bowed_solo", 2),
    ("clarinet", 2),
    ("plucked", 2),
    ("flute", 1.5),
    ("voice", 1.5),
)
ANY: Weights = tuple(
    (name, 1.0) for name in ("piano", "guitar", "lead", "brass", "flute", "mallet", "oboe", "strings")
)


@dataclass(frozen=True)
class Part:
    """One player. role: a key of `players.ROLES`. chance: of being there. level: dB against the other parts.

    families: instruments with weights (pitched roles). ensemble: a key of `drums.ENSEMBLES` (percussion).
    centre: MIDI pitch. density: range of rhythmic density. same: shares the instrument of the named earlier
    part.
    """

    role: str
    chance: float = 1.0
    families: Weights = ()
    ensemble: str = ""
    level: float = 0.0
    centre: int = 60
    density: tuple[float, float] = (0.1, 0.7)
    same: int = -1


@dataclass(frozen=True)
class Style:
    """feels: weights of `timing.FEELS`. flat: chance of no dynamics (as notated). harmony: harmonic rhythms.

    loop: chance that progressions repeat. steady: chance of one section only. dry: chance of no effects.
    """

    name: str
    weight: float
    parts: tuple[Part, ...]
    feels: Weights = (("machine", 2), ("steady", 2), ("human", 2))
    flat: float = 0.15
    harmony: Weights = (
        ("bar", 5),
        ("two_bars", 1),
        ("half", 1.5),
        ("mixed", 1.5),
        ("group", 0.4),
        ("static", 0.6),
    )
    loop: float = 0.5
    steady: float = 0.3


SCORED: Weights = (("machine", 3), ("steady", 2), ("human", 1.5), ("rubato", 2.5))
CLASSICAL: Weights = (("bar", 4), ("two_bars", 0.8), ("half", 2), ("mixed", 2.5), ("group", 1))

STYLES: tuple[Style, ...] = (
    Style("song", 3.2, (
        Part("figure", families=(("piano", 8), ("old_piano", 2), ("guitar", 0.7), ("harp", 0.3)), centre=57),
        Part("melody", 0.88, SINGING, level=1, centre=69),
        Part("double", 0.25, same=0, level=-5, centre=69),
    ), SCORED, 0.5, CLASSICAL, 0.1, 0.1),
    Style("piano", 2.8, (
        Part("figure", families=KEYS, centre=55),
        Part("melody", 0.95, same=0, level=2, centre=73, density=(0.1, 0.9)),
        Part("counter", 0.2, same=0, level=-3, centre=64, density=(0.0, 0.4)),
    ), SCORED, 0.4, CLASSICAL, 0.15, 0.15),
    Style("blocks", 1.2, (
        Part("block", families=(("piano", 4), ("organ", 2), ("choir", 2), ("strings", 1), ("brass", 0.5)),
             centre=58),
        Part("melody", 0.6, SINGING, level=1, centre=70, density=(0.0, 0.5)),
        Part("bass", 0.3, same=0, centre=41),
    ), SCORED, 0.5, (("bar", 2), ("half", 3), ("group", 3), ("mixed", 2)), 0.15, 0.2),
    Style("quartet", 1.4, (
        Part("melody", families=BOWED, level=2, centre=76, density=(0.1, 0.9)),
        Part("figure", 0.75, same=0, level=-3, centre=62),
        Part("counter", 0.6, same=0, level=-2, centre=64, density=(0.0, 0.6)),
        Part("bass", 0.75, same=0, level=-1, centre=43),
        Part("pad", 0.25, same=0, level=-5, centre=60),
    ), SCORED, 0.4, CLASSICAL, 0.1, 0.1),
    Style("counterpoint", 0.9, (
        Part("melody", families=(("piano", 3), ("harpsichord", 2), ("organ", 2), ("strings", 2),
             ("flute", 1)), centre=74,
             density=(0.3, 0.9)),
        Part("counter", same=0, centre=62, density=(0.2, 0.8)),
        Part("counter", 0.6, same=0, centre=50, density=(0.1, 0.6)),
    ), SCORED, 0.5, (("bar", 2), ("half", 3), ("group", 2)), 0.1, 0.1),
    Style("orchestra", 0.9, (
        Part("melody", families=(("strings", 2), ("oboe", 1), ("brass", 1), ("flute", 1), ("clarinet", 1)),
             level=1, centre=74),
        Part("pad", 0.6, (("strings", 3), ("brass", 1)), level=-4, centre=60),
        Part("figure", 0.7, (("strings", 2), ("pizzicato", 2), ("harp", 1)), level=-3, centre=60),
        Part("bass", 0.8, (("pizzicato", 1), ("strings", 1), ("upright", 1)), centre=40),
        Part("drums", 0.35, ensemble="orchestral", level=-3),
    ), SCORED, 0.25, CLASSICAL, 0.15, 0.15),
    Style("plucked", 1.2, (
        Part("figure", families=PLUCKED, centre=57),
        Part("melody", 0.6, same=0, level=1, centre=70),
        Part("bass", 0.2, same=0, centre=43),
    ), (("machine", 1), ("steady", 2), ("human", 2), ("rubato", 1.5)), 0.3),
    Style("tune", 0.6, (
        Part("melody", families=(*SINGING, *FOLK), centre=70, density=(0.2, 0.9)),
        Part("drone", 0.3, PADS, level=-10),
        Part("double", 0.15, same=0, centre=58),
    ), SCORED, 0.3, CLASSICAL, 0.2, 0.2),
    Style("kit", 2.2, (Part("drums", ensemble="kit"),), (("machine", 1), ("steady", 2), ("human", 4)), 0.1),
    Style("band", 2.6, (
        Part("drums", 0.93, ensemble="kit", level=1),
        Part("bass", 0.9, BASSES, centre=40),
        Part("figure", 0.6, (("guitar", 3), ("distorted", 2), ("piano", 2), ("electric_piano", 1),
             ("muted_guitar", 1)), level=-4, centre=57),
        Part("block", 0.3, (("guitar", 2), ("piano", 1), ("organ", 1)), level=-5, centre=58,
             density=(0.0, 0.6)),
        Part("riff", 0.35, (("guitar", 2), ("distorted", 2), ("lead", 1), ("brass", 1), ("muted_guitar", 1)),
             level=-3, centre=54),
        Part("pad", 0.35, PADS, level=-8),
        Part("melody", 0.7, (("voice", 4), ("lead", 1), ("guitar", 1), ("brass", 1)), level=-1, centre=68),
    ), loop=0.8),
    Style("jazz", 0.8, (
        Part("drums", 0.85, ensemble="kit", level=-2),
        Part("bass", 0.9, (("upright", 4), ("bass", 1)), centre=40),
        Part("block", 0.7, (("piano", 3), ("guitar", 1), ("electric_piano", 1)), level=-4,
             density=(0.0, 0.5)),
        Part("melody", 0.8, (("brass", 2), ("clarinet", 1), ("piano", 1), ("lead", 0.3)), centre=69,
             density=(0.2, 0.9)),
    ), (("steady", 2), ("human", 4)), 0.05),
    Style("percussion", 1.6, (
        Part("drums", ensemble="hands"),
        Part("drums", 0.6, ensemble="frame", level=-2),
        Part("drums", 0.35, ensemble="hands", level=-3),
        Part("bass", 0.12, BASSES),
    ), flat=0.2, steady=0.6),
    Style("theka", 2.2, (
        Part("theka"),
        Part("drone", 0.75, (("tanpura", 4), ("plucked", 1), ("guitar", 0.7), ("harp", 0.5), ("reed", 0.7),
             ("strings", 0.5)), level=-3),
        Part("riff", 0.25, (("reed", 2), ("bowed_solo", 1), ("plucked", 1)), level=-4, centre=64),
        Part("melody", 0.2, FOLK, level=-3, centre=66),
    ), (("machine", 3), ("steady", 2), ("human", 1.5)), 0.2, (("static", 3), ("bar", 1)), 0.5, 0.9),
    Style("machine", 1.5, (
        Part("drums", 0.95, ensemble="machine"),
        Part("bass", 0.75, (("synth_bass", 4), ("bass", 1)), centre=38),
        Part("riff", 0.75, SYNTHS, level=-4, centre=64, density=(0.3, 0.9)),
        Part("riff", 0.35, SYNTHS, level=-6, centre=74, density=(0.2, 0.9)),
        Part("pad", 0.5, PADS, level=-8),
        Part("figure", 0.25, SYNTHS, level=-6, centre=62),
    ), (("machine", 1),), 0.3, loop=0.95, steady=0.5),
    Style("loops", 0.9, (
        Part("drums", ensemble="foley"),
        Part("drums", 0.5, ensemble="machine", level=-3),
        Part("riff", 0.4, SYNTHS, level=-4, centre=62),
    ), (("machine", 1),), 0.3, (("static", 2), ("bar", 1)), 1.0, 1.0),
    Style("dance", 1.8, (
        Part("drums", 0.85, ensemble="darbuka"),
        Part("drums", 0.3, ensemble="frame", level=-3),
        Part("melody", 0.9, FOLK, level=-1, centre=69, density=(0.3, 0.95)),
        Part("figure", 0.5, (("guitar", 2), ("reed", 2), ("plucked", 1)), level=-5, centre=57),
        Part("bass", 0.5, BASSES, level=-2, centre=40),
        Part("drone", 0.3, PADS, level=-9),
    ), (("machine", 1), ("steady", 2), ("human", 3)), 0.15, loop=0.4),
    Style("ostinato", 0.8, (
        Part("riff", families=ANY, centre=64, density=(0.2, 0.9)),
        Part("riff", 0.7, ANY, level=-2, centre=76, density=(0.1, 0.9)),
        Part("riff", 0.4, BASSES, level=-1, centre=40, density=(0.0, 0.5)),
        Part("pad", 0.4, PADS, level=-6),
        Part("drums", 0.3, ensemble="frame", level=-3),
    ), flat=0.4, loop=0.9, steady=0.6),
    Style("click", 0.35, (Part("click"),), (("machine", 1),), 1.0, steady=1.0),
)  # fmt: skip
