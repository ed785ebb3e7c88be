"""What is played: a block of bars for every letter, composed once and laid wherever the letter comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray, IntArray
from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.forms import Form
from beatmeter.datasets.synth.harmony import Harmony, draw_harmony
from beatmeter.datasets.synth.players import PERCUSSION
from beatmeter.datasets.synth.songs.forms import Planned
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout

PHRASE_FORMS = ("aaaa", "abab", "aaab", "abac", "aabb", "abcd")
PHRASES = ((4, 0.72), (8, 0.12), (2, 0.1), (3, 0.03), (5, 0.03))


@dataclass(frozen=True)
class Block:
    """Bars [first, first + bars) of the score that a letter is read from."""

    first: int
    bars: int


@dataclass(frozen=True)
class Score:
    """The blocks of all letters one after another on a pulse axis of their own, with a free bar before each
    for its pickup.

    blocks: letter -> its blocks; several are variants of the same material. bar: pulses of a bar. phrases:
    what melodies follow; textures and grooves: the same phrases, named by the accompaniment and the drum
    pattern that they share.
    """

    layout: Layout
    phrases: list[Phrase]
    textures: list[Phrase]
    grooves: list[Phrase]
    harmony: Harmony
    blocks: dict[str, list[Block]]

    def phrases_for(self, role: str) -> list[Phrase]:
        """The phrases that a role plays by."""
        return (
            self.grooves
            if role in PERCUSSION
            else self.textures
            if role in {"figure", "block", "bass"}
            else self.phrases
        )

    @property
    def bar(self) -> int:
        """Pulses in a bar."""
        return self.layout.pulses


def draw_score(
    rng: np.random.Generator,
    sections: Sequence[Planned],
    meter: Form,
    division: int,
    *,
    rhythm: str,
    loop: bool,
    alike: tuple[float, float, float],
) -> Score:
    """Draw blocks, phrases and chords. alike: chances that a letter has the chords (with `loop`), the
    accompaniment and the drum pattern of an earlier one."""
    usual: dict[str, int] = {}
    for section in sections:
        usual.setdefault(section.letter, section.bars)
    variants = 1 if rng.random() < 0.5 else 2
    blocks: dict[str, list[Block]] = {}
    phrases: list[Phrase] = []
    chords: list[Phrase] = []  # of the first variants
    names = {
        kind: _shared_names(rng, list(usual), chance)
        for kind, chance in zip(("chords", "textures", "grooves"), alike, strict=True)
    }
    inner = float(rng.uniform(0.3, 1))  # how often phrases of a letter differ
    at = 1
    for letter, bars in usual.items():
        cuts = _cuts(rng, bars)
        size = _block_bars(rng, bars)
        cuts = [(start, min(length, size - start)) for start, length in cuts if start < size]
        marks = [
            one_of(rng, PHRASE_FORMS)[count % 4] if rng.random() < inner else "a"
            for count in range(len(cuts))
        ]
        blocks[letter] = []
        for variant in range(variants):
            blocks[letter].append(Block(at, size))
            for (start, length), mark in zip(cuts, marks, strict=True):
                phrase = Phrase(at + start, length, letter + mark, start + length == size)
                phrases.append(phrase)
                if not variant:
                    chords.append(replace(phrase, section=names["chords"][letter] + mark))
            at += size + 1
    layout = Layout(np.arange(at + 1, dtype=np.float64) * meter.pulses, meter.groups, 1.0, division)
    harmony = draw_harmony(rng, layout, chords, rhythm=rhythm, loop=loop)
    textures = [replace(phrase, section=names["textures"][phrase.section[0]]) for phrase in phrases]
    grooves = [replace(phrase, section=names["grooves"][phrase.section[0]]) for phrase in phrases]
    return Score(layout, phrases, textures, grooves, _for_variants(harmony, blocks, meter.pulses), blocks)


def _shared_names(rng: np.random.Generator, letters: Sequence[str], chance: float) -> dict[str, str]:
    """A name for every letter: its own, or with this chance that of an earlier letter."""
    names: dict[str, str] = {}
    for letter in letters:
        names[letter] = one_of(rng, list(names.values())) if names and rng.random() < chance else letter
    return names


def _block_bars(rng: np.random.Generator, bars: int) -> int:
    """Longer sections often say the same thing twice."""
    for half, chance in ((8, 0.65), (4, 0.25)):
        if bars > half and bars % half == 0 and rng.random() < chance:
            return half
    return bars


def _cuts(rng: np.random.Generator, bars: int) -> list[tuple[int, int]]:
    """(first, bars) of the phrases of a block."""
    usual = pick(rng, PHRASES)
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < bars:
        length = min(usual, bars - start)
        cuts.append((start, length))
        start += length
    return cuts


def _for_variants(harmony: Harmony, blocks: dict[str, list[Block]], bar: int) -> Harmony:
    """The chords of every first block, laid under its variants too."""
    rows: list[tuple[float, int, int]] = []
    for variants in blocks.values():
        low, high = variants[0].first * bar, (variants[0].first + variants[0].bars) * bar
        inside = (harmony.starts >= low) & (harmony.starts < high)
        for block in variants:
            shifted = harmony.starts[inside] - low + block.first * bar
            rows += zip(
                shifted.tolist(),
                harmony.degrees[inside].tolist(),
                harmony.inversions[inside].tolist(),
                strict=True,
            )
    rows.sort()
    starts, degrees, inversions = (np.array(column) for column in zip(*rows, strict=True))
    return replace(
        harmony,
        starts=starts.astype(float),
        degrees=degrees.astype(np.int64),
        inversions=inversions.astype(np.int64),
    )


@dataclass(frozen=True)
class Reading:
    """Where every bar of the song is read from. source: (bar,) bar of the score. opening: (bar,) whether a
    block begins there.
    ends: (bar,) pulse at which the section of the bar ends."""

    source: IntArray
    opening: IntArray
    ends: FloatArray


def draw_reading(rng: np.random.Generator, sections: Sequence[Planned], score: Score) -> Reading:
    """Which variant of its letter every section plays, again and again until it is over."""
    source: list[int] = []
    opening: list[bool] = []
    ends: list[int] = []
    for section in sections:
        variants = score.blocks[section.letter]
        turn = int(rng.integers(0, len(variants)))
        last = (len(source) + section.bars) * score.bar
        for bar in range(section.bars):
            block = variants[(turn + bar // variants[0].bars) % len(variants)]
            source.append(block.first + bar % block.bars)
            opening.append(bar % block.bars == 0)
            ends.append(last)
    return Reading(np.array(source), np.array(opening, dtype=np.int64), np.array(ends, dtype=np.float64))


def lay_out(table: FloatArray, score: Score, reading: Reading) -> FloatArray:
    """Notes of the score (note, 4) to notes of the song: copied bar by bar, pickups with the block that
    they lead to, none longer than its section."""
    rows = []
    bar = score.bar
    of_bar = np.floor(table[:, 0] / bar + 1e-9).astype(int) if len(table) else np.zeros(0, dtype=int)
    low = np.searchsorted(of_bar, np.arange(score.layout.bars + 1))
    for place, source in enumerate(reading.source):
        for take in (source - 1, source) if reading.opening[place] and place else (source,):
            notes = table[low[take] : low[take + 1]].copy()
            if not len(notes):
                continue
            at = place if take == source else place - 1
            notes[:, 0] += (at - take) * bar
            notes[:, 1] = np.minimum(notes[:, 1], np.maximum(0.05, reading.ends[at] - notes[:, 0]))
            rows.append(notes)
    if not rows:
        return np.zeros((0, 4))
    song = np.concatenate(rows)
    return song[np.argsort(song[:, 0], kind="stable")]
