"""Who plays what: every role of the style table as a function from a player to notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from beatmeter.datasets.synth import accompaniment as under
from beatmeter.datasets.synth import drums
from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.dances import Dance
from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.harmony import Harmony
from beatmeter.datasets.synth.hits import STROKES
from beatmeter.datasets.synth.melody import MelodyStyle, melody_part
from beatmeter.datasets.synth.mixing import Sounding, percussion, pitched
from beatmeter.datasets.synth.notes import Dynamics, Notes
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.styles import Part, Style
from beatmeter.datasets.synth.timing import Layout
from beatmeter.datasets.synth.tones import Instrument

STROKE_NUMBERS = {name: number for number, name in enumerate(STROKES)}


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
    dance: Dance | None = None  # its rhythms and figures stand in for drawn ones


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
        rhythms=player.dance.rhythms if player.dance else (),
    )
    return melody_part(
        rng, player.layout, player.phrases, player.harmony, style, player.pulse, player.dynamics
    )


def _figure(rng: np.random.Generator, player: Player) -> Notes:
    p, names = player, player.dance.figures if player.dance else ()
    return under.figure_part(
        rng, p.layout, p.phrases, p.harmony, p.pulse, p.dynamics, p.part.centre, wander=p.scored, names=names
    )


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


def _cycle(rng: np.random.Generator, player: Player) -> Notes:
    return drums.cycle_part(rng, player.layout, STROKE_NUMBERS)


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
    "cycle": _cycle,
}
PERCUSSION = frozenset({"drums", "theka", "click", "cycle"})


def notes_of(
    own: np.random.Generator, twin: np.random.Generator, player: Player, parts: list[Part], number: int
) -> Notes:
    """What the part `number` plays; `twin` is a fresh stream of the part before, which a double plays
    after."""
    if player.part.role == "double":
        return doubled(own, twin, player, parts, number)
    return ROLES[player.part.role](own, player)


def changes_of(harmony: Harmony, parts: list[Part]) -> FloatArray:
    """Pulses at which chords change where one of the parts plays pitches."""
    return harmony.changes if any(part.role not in PERCUSSION for part in parts) else np.zeros(0)


class Sounds:
    """The instruments of a piece: drawn when a part first needs one, and shared by the parts that say so."""

    def __init__(self, style: Style, rate: int) -> None:
        self.style, self.rate = style, rate
        self.instruments: dict[int, Instrument] = {}

    def of(self, own: np.random.Generator, part: Part, table: FloatArray) -> Sounding:
        """What makes the sounds of a part's notes."""
        if part.role in PERCUSSION:
            return percussion(own, table, self.rate)
        rows = self.style.parts
        row = rows.index(part)
        source = next((at for at in (part.same, row) if at in self.instruments), row)
        if source not in self.instruments:
            families = part.families or rows[max(0, part.same)].families
            self.instruments[source] = Instrument(pick(own, families), own, self.rate)
        return pitched(self.instruments[source])


def doubled(
    rng: np.random.Generator, twin: np.random.Generator, player: Player, parts: list[Part], number: int
) -> Notes:
    """The part before, an octave away and now and then without its short notes."""
    source = parts[number - 1] if number else player.part
    role = source.role if source.role in ROLES else "melody"
    shifted = replace(player, part=source)
    octave = 12 * int(rng.choice((-1, 0, 1)))
    notes = ROLES[role](twin, shifted)
    return Notes([(at, length, pitch + octave, level) for at, length, pitch, level in notes.rows])


def resting(
    rng: np.random.Generator, table: FloatArray, phrases: list[Phrase], layout: Layout, part: Part, count: int
) -> FloatArray:
    """Parts of larger textures rest for whole phrases now and then."""
    if count < 3 or not len(table) or rng.random() < 0.5:
        return table
    keep = np.ones(len(table), dtype=bool)
    for phrase in phrases:
        if rng.random() < 0.12:
            start, end = layout.starts[phrase.first], layout.starts[phrase.first + phrase.bars]
            keep &= ~((table[:, 0] >= start) & (table[:, 0] < end))
    return table[keep]
