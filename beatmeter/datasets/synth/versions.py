"""Versions of a work: the piece stays, and style, key, tempo, players and room are drawn anew.

A piece is what render draws before anybody plays: bars, phrases, chords and the notes of every part.
Version 0 plays it as written; every other one is a

    keyboard   all notes on one keyboard or plucked instrument,
    ensemble   every part on an instrument of its own, octaves and levels drawn, one part perhaps left out,
    cover      the melody over chords, bass and drums of another style, some chords exchanged,

in another key, at 0.72 to 1.35 times the tempo, from another place of the piece, in another room. Every
concern of every version has its own named random stream, so version k of a work is the same whatever else
is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from beatmeter.datasets.synth.clip import Clip, FloatArray
from beatmeter.datasets.synth.draws import one_of, pick, stream
from beatmeter.datasets.synth.effects import apply_effects
from beatmeter.datasets.synth.harmony import MOTIONS, Harmony, draw_harmony
from beatmeter.datasets.synth.meters import Meters, draw_meters
from beatmeter.datasets.synth.mixing import mix, percussion, pitched
from beatmeter.datasets.synth.notes import Dynamics, draw_dynamics
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.players import PERCUSSION, ROLES, Player, doubled
from beatmeter.datasets.synth.rendering import clip_of
from beatmeter.datasets.synth.structure import Phrase, draw_phrases
from beatmeter.datasets.synth.styles import (
    ANY,
    BOWED,
    FOLK,
    KEYS,
    PADS,
    PLUCKED,
    SINGING,
    STYLES,
    Part,
    Style,
)
from beatmeter.datasets.synth.timing import draw_timing
from beatmeter.datasets.synth.tones import Instrument

Manner = Literal["score", "keyboard", "ensemble", "cover"]
MANNERS: tuple[Manner, ...] = ("score", "keyboard", "ensemble", "cover")
MELODIC = ("melody", "counter", "riff")
TEMPO_RATIOS = (0.72, 1.35)  # slowest and fastest against version 0
LATEST = 0.4  # of a clip: how much later in the piece a version may begin
EXCHANGED = 0.15  # share of the chords that a cover exchanges


@dataclass(frozen=True)
class Piece:
    """A work: `parts` are its pitched parts with (note, 4) onset and length in pulses, pitch, velocity."""

    seed: int
    style: Style
    meters: Meters
    phrases: list[Phrase]
    harmony: Harmony
    dynamics: Dynamics
    parts: tuple[tuple[Part, FloatArray], ...]

    @property
    def melody(self) -> int:
        """Which part leads: the first melodic one, else the highest."""
        leading = [n for n, (part, _) in enumerate(self.parts) if part.role in MELODIC]
        return leading[0] if leading else max(range(len(self.parts)), key=lambda n: self.parts[n][0].centre)


@dataclass(frozen=True)
class Version:
    """One version of a work: audio and grid, and how it differs from version 0. `transpose` in semitones,
    `tempo_ratio` to version 0, `start` in seconds of version 0; `key` is its tonic, 0 for C."""

    clip: Clip
    manner: Manner
    key: int
    transpose: int
    tempo_ratio: float
    start: float


def render_version(
    seed: int,
    version: int,
    *,
    seconds: float = 20.0,
    sample_rate: int = 24000,
    options: SynthOptions = SynthOptions(),  # noqa: B008 (frozen)
) -> Version:
    """Version `version` of the work `seed`, `seconds` long: the same bytes in any process and any order.
    Versions 1, 2, 3, 4 ... take the manners keyboard, ensemble, cover, keyboard ... in turn."""
    piece = compose(seed, seconds)
    rng = stream(seed, f"version {version}")
    manner: Manner = MANNERS[0] if version == 0 else MANNERS[1 + (version - 1) % 3]
    ratio, transpose, start = 1.0, 0, 0.0
    if version:
        ratio = float(np.exp(rng.uniform(*np.log(TEMPO_RATIOS))))
        transpose = int(rng.integers(-5, 7))
        start = float(rng.uniform(0, LATEST)) * seconds
    feel = pick(
        rng,
        piece.style.feels if version == 0 else (("machine", 1), ("steady", 2), ("human", 2), ("rubato", 1)),
    )
    layout = piece.meters.first
    timing = draw_timing(
        rng,
        feel=feel,
        pulse=piece.meters.pulse / ratio,
        bars=layout.starts,
        phrases=np.array([layout.starts[p.first + p.bars] for p in piece.phrases]),
        origin=start / piece.meters.pulse,
        swing=0.5,
    )
    whole = (0.0, seconds)
    out = np.zeros(round(seconds * sample_rate), dtype=np.float32)
    for number, (part, table, families) in enumerate(_players(piece, manner, rng, version)):
        if not len(table):
            continue
        own = stream(seed, f"version {version} part {number}")
        level = 10 ** ((part.level + own.normal(0, 3)) / 20)
        if part.role in PERCUSSION:
            sounding, level = percussion(own, table, sample_rate), level * 0.7
        else:
            table = table.copy()
            table[:, 2] += transpose
            # one instrument for all where the manner says so
            player = stream(seed, f"version {version} keyboard") if manner == "keyboard" else own
            sounding = pitched(Instrument(pick(player, families), player, sample_rate))
        mix(out, own, table, timing, sounding, level, whole, sample_rate)
    audio = apply_effects(out, stream(seed, f"version {version} effects"), options, sample_rate)
    clip = clip_of(seed, audio, sample_rate, seconds, whole, piece.style, piece.meters, piece.phrases, timing)
    return Version(clip, manner, (piece.harmony.key + transpose) % 12, transpose, ratio, start)


def compose(seed: int, seconds: float) -> Piece:
    """The piece of a seed, long enough for every version of `seconds`."""
    style = pick(stream(seed, "style"), [(s, s.weight * (1.1 - s.loop)) for s in STYLES if _tuneful(s)])
    longest = seconds * (LATEST + TEMPO_RATIOS[1]) + 4
    meters = draw_meters(stream(seed, "meter"), None, "single", longest, SynthOptions())
    rng, players = stream(seed, "piece"), stream(seed, "players")
    phrases = draw_phrases(rng, meters.first, steady=rng.random() < style.steady)
    harmony = draw_harmony(
        stream(seed, "harmony"),
        meters.first,
        phrases,
        rhythm=pick(players, style.harmony),
        loop=players.random() < style.loop,
    )
    dynamics = draw_dynamics(players, flat=players.random() < style.flat)
    pitched_parts = [part for part in style.parts if part.role not in PERCUSSION]
    chosen = [part for part in pitched_parts if players.random() < part.chance] or pitched_parts[:1]
    if not any(part.role in MELODIC for part in chosen):
        chosen += [part for part in pitched_parts if part.role in MELODIC][:1]
    parts = []
    for number, part in enumerate(chosen):
        player = Player(part, meters.first, phrases, harmony, meters.pulse, dynamics, style.loop < 0.3)
        own = stream(seed, f"part {number}")
        if part.role == "double":
            notes = doubled(own, stream(seed, f"part {max(0, number - 1)}"), player, chosen, number)
        else:
            notes = ROLES[part.role](own, player)
        parts.append((part, notes.table()))
    return Piece(seed, style, meters, phrases, harmony, dynamics, tuple(parts))


def _tuneful(style: Style) -> bool:
    """Whether the style has pitched parts with a melody or chords in them."""
    return any(part.role in (*MELODIC, "figure", "block") for part in style.parts)


Played = tuple[
    Part, FloatArray, tuple[tuple[str, float], ...]
]  # a part, its notes, the instruments it may have


def _players(piece: Piece, manner: Manner, rng: np.random.Generator, version: int) -> list[Played]:
    """Who plays what in a version."""
    if manner == "score":
        return [
            (p, notes, p.families or piece.style.parts[max(0, p.same)].families or ANY)
            for p, notes in piece.parts
        ]
    if manner == "keyboard":
        return [(p, notes, one_of(rng, (KEYS, KEYS, PLUCKED))) for p, notes in piece.parts]
    if manner == "ensemble":
        kept = list(piece.parts)
        if len(kept) > 2 and rng.random() < 0.4:
            kept.pop(one_of(rng, [n for n in range(len(kept)) if n != piece.melody]))
        return [(p, _octave(rng, notes), one_of(rng, (ANY, BOWED, SINGING, FOLK, PADS))) for p, notes in kept]
    return _cover(piece, rng, version)


def _octave(rng: np.random.Generator, notes: FloatArray) -> FloatArray:
    moved = notes.copy()
    if len(moved):
        moved[:, 2] = np.clip(moved[:, 2] + 12 * int(rng.choice((-1, 0, 0, 1))), 28, 100)
    return moved


def _cover(piece: Piece, rng: np.random.Generator, version: int) -> list[Played]:
    """The melody, and under it the accompaniment of another style over the same chords, but for a few."""
    lead, notes = piece.parts[piece.melody]
    found: list[Played] = [(lead, _octave(rng, notes), one_of(rng, (SINGING, ANY, FOLK)))]
    degrees = piece.harmony.degrees.copy()
    for at in np.flatnonzero(rng.random(len(degrees)) < EXCHANGED):
        degrees[at] = pick(rng, MOTIONS[int(degrees[at])])
    harmony = replace(piece.harmony, degrees=degrees, sevenths=bool(rng.random() < 0.3))
    styles = [s for s in STYLES if any(p.role in ("block", "figure", "bass", "pad") for p in s.parts)]
    style = pick(rng, [(s, s.weight) for s in styles])
    for number, part in enumerate(
        p for p in style.parts if p.role not in (*MELODIC, "double", "theka", "click")
    ):
        if rng.random() < part.chance:
            player = Player(
                part, piece.meters.first, piece.phrases, harmony, piece.meters.pulse, piece.dynamics, False
            )
            own = stream(piece.seed, f"version {version} accompaniment {number}")
            families = part.families or style.parts[max(0, part.same)].families or ANY
            found.append((part, ROLES[part.role](own, player).table(), families))
    return found
