"""Sections from bars: frames, bars, the best way to cut, letters, and whole songs."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from beatmeter.audio.barwise import MEL_HZ, PITCH_HZ, FrameFeatures, bar_means, frame_features
from beatmeter.datasets.synth.songs import render_song
from beatmeter.errors import AudioError
from beatmeter.evaluation.metrics.sections import intervals_of, section_scores
from beatmeter.tasks.structure.baselines import clustering, every_bars, foote, null_systems, random_bars
from beatmeter.tasks.structure.costs import Evidence
from beatmeter.tasks.structure.descriptors import blocks_around, descriptors, repeats
from beatmeter.tasks.structure.sections import HeardBars, bar_edges, find_drops, find_sections, hear_bars
from beatmeter.tasks.structure.segmentation import Prices, cut_bars, letter, letters, worth_of_sections
from beatmeter.tasks.structure.similarity import (
    STRIP,
    BarFeatures,
    Nearness,
    alike_bars,
    bar_features,
    similarities,
    strips,
)

RATE = 24_000


def tone(hertz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def blocks(pattern: str, bars: int, rng: np.random.Generator) -> np.ndarray:
    """(bar, bar) similarity of sections of `bars` bars each, alike within a letter, with some noise."""
    names = np.repeat(list(pattern), bars)
    noise = rng.normal(0, 0.05, (len(names), len(names)))
    return np.where(names[:, None] == names[None, :], 0.6, -0.2) + (noise + noise.T) / 2


# frames


def test_frames_do_not_depend_on_how_the_wave_comes() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)
    whole = frame_features([wave])
    parts = frame_features([wave[:100], wave[100:3000], wave[3000:90_001], wave[90_001:]])
    assert np.allclose(whole.mel, parts.mel, atol=1e-5)
    assert np.allclose(whole.pitch, parts.pitch, atol=1e-5)
    assert len(whole.mel) == 5 * MEL_HZ + 1
    assert len(whole.pitch) == 5 * PITCH_HZ + 1


def test_a_tone_is_where_its_pitch_is_and_twice_as_loud_is_six_decibels_more() -> None:
    soft, loud = (frame_features([tone(440.0, 3.0, level)]) for level in (0.1, 0.2))
    assert int(soft.pitch[15].argmax()) == 69 - 36
    assert loud.mel[30].max() - soft.mel[30].max() == pytest.approx(np.log10(2), abs=1e-3)


def test_audio_that_is_none_is_refused() -> None:
    with pytest.raises(AudioError, match="there is no audio"):
        frame_features([])
    with pytest.raises(AudioError, match="values that are no numbers"):
        frame_features([np.array([0.0, np.nan], np.float32)])


def test_means_of_bars_are_those_of_their_frames() -> None:
    frames = np.arange(40, dtype=np.float64)[:, None]  # frame k is around k / 20 s
    means = bar_means(frames, 20, np.array([0.475, 0.975, 1.475]), 2)[..., 0]
    assert means == pytest.approx(np.array([[12.0, 17.0], [22.0, 27.0]]))
    beyond = bar_means(frames, 20, np.array([1.0, 3.0, 5.0]), 1)[..., 0]
    assert beyond[1, 0] == 39.0


def test_means_do_not_depend_on_how_many_parts_are_summed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames, edges = rng.normal(-2, 1, (200, 3)), np.sort(rng.uniform(0, 11, 12))
    whole = bar_means(frames, 20, edges, 4)
    monkeypatch.setattr("beatmeter.audio.barwise.STRETCH", 3)
    assert bar_means(frames, 20, edges, 4) == pytest.approx(whole, abs=1e-9)


# cutting


def test_no_way_to_cut_is_worth_more() -> None:
    """Against all 2^9 ways to cut ten bars, and the shares of boundaries against the sum over them."""
    rng = np.random.default_rng(1)
    similarity = rng.uniform(-1, 1, (10, 10))
    similarity = (similarity + similarity.T) / 2
    evidence = rng.normal(-1, 2, 10)
    prices = Prices(longest=6)
    worth = worth_of_sections(similarity, prices)
    values = {}
    for count in range(10):
        for inner in combinations(range(1, 10), count):
            first = (0, *inner, 10)
            if max(np.diff(first)) <= 6:
                values[first] = sum(worth[a, b - a] for a, b in pairwise(first)) + sum(evidence[list(inner)])
    cut = cut_bars(similarity, evidence, prices)
    best = max(values, key=lambda first: values[first])
    assert tuple(cut.first.tolist()) == best
    weight = {first: np.exp(value) for first, value in values.items()}
    for bar, sure in zip(cut.first[:-1].tolist(), cut.sure, strict=True):
        share = sum(w for first, w in weight.items() if bar in first) / sum(weight.values())
        assert sure == pytest.approx(share, abs=1e-9)


def test_blocks_are_cut_where_they_meet_and_share_letters() -> None:
    similarity = blocks("ABACB", 8, np.random.default_rng(2))
    cut = cut_bars(similarity, None, Prices())
    assert cut.first.tolist() == [0, 8, 16, 24, 32, 40]
    assert cut.sure.min() > 0.5
    assert letters(similarity, cut.first, 0.3) == ("A", "B", "A", "C", "B")


def test_the_price_of_lengths_is_weak() -> None:
    assert cut_bars(blocks("AB", 7, np.random.default_rng(3)), None, Prices()).first.tolist() == [0, 7, 14]


def test_letters_go_on_after_z() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


# bars


@pytest.mark.parametrize("downbeats", [[], [3.0], [0.4, 2.4, 4.4], [5.0, 7.0, 7.05, 9.0], [-1.0, 1.0, 99.0]])
def test_bars_fill_the_track(downbeats: list[float]) -> None:
    edges = bar_edges(np.array(downbeats), 20.3)
    assert edges[0] == 0.0
    assert edges[-1] == pytest.approx(20.3)
    assert np.diff(edges).min() > 0.3
    inside = [t for t in downbeats if 0.99 < t < 19]
    if len(inside) > 1:
        assert np.abs(np.subtract.outer(inside, edges)).min(axis=1).max() < 0.06


@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.0, 5.0])
def test_sections_of_hardly_anything(seconds: float) -> None:
    marks = find_sections(hear_bars(frame_features([tone(300, seconds)]), np.zeros(0)))
    assert marks.starts[0] == 0.0
    assert marks.ends[-1] >= seconds - 1e-6
    assert np.array_equal(marks.starts[1:], marks.ends[:-1])


def test_silence_is_one_letter() -> None:
    marks = find_sections(hear_bars(frame_features([np.zeros(60 * RATE, np.float32)]), np.arange(0, 60, 2.0)))
    assert set(marks.names) == {"A"}


# drops


def test_drops_are_probable_bars_some_bars_apart() -> None:
    """Of two neighbours the more probable one; never the first bar; none without learned costs."""
    edges, alike = np.arange(0, 42.0, 2.0), np.zeros((20, 20))
    odds = np.full(20, -6.0)
    odds[[0, 8, 10, 15]] = [5.0, 2.0, 3.0, 1.0]
    found = find_drops(HeardBars(edges, alike, Evidence(np.zeros(20), odds)))
    assert found.starts.tolist() == [20.0, 30.0]
    assert found.scores == pytest.approx([0.9526, 0.7311], abs=1e-4)
    assert not len(find_drops(HeardBars(edges, alike, None)))


# songs


def test_sections_of_songs_are_found_better_than_from_the_grid() -> None:
    """Four generated songs with their true bars; the score of all is far above every 8 bars and random
    bars."""
    rng = np.random.default_rng(0)
    scores: dict[str, list[float]] = {}
    for seed in range(20, 24):
        song = render_song(seed, form="pop", seconds=(80, 140))
        frames = frame_features([song.audio])
        truth = intervals_of(np.array([song.sections[0].start, *(s.end for s in song.sections)]))
        names = [s.letter for s in song.sections]
        marks = find_sections(hear_bars(frames, song.downbeats))
        assert ((marks.scores >= 0) & (marks.scores <= 1)).all()
        found = section_scores(truth, names, np.stack([marks.starts, marks.ends], axis=1), marks.names)
        scores.setdefault("sections", []).append(found["hr3"])
        scores.setdefault("letters", []).append(found["pairwise_f"])
        bars = bar_features(frames, bar_edges(song.downbeats, frames.seconds))
        for name, times in null_systems(bars, len(truth), rng).items():
            scores.setdefault(name, []).append(section_scores(truth, names, intervals_of(times), None)["hr3"])
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    assert means["sections"] > max(means["every 8 bars"], means["random downbeats, true number"]) + 0.1, means
    assert means["letters"] > 0.4, means


def test_null_systems_do_as_they_say() -> None:
    assert every_bars(20).tolist() == [0, 8, 16]
    drawn = random_bars(20, 4, np.random.default_rng(0))
    assert len(drawn) == 4
    assert drawn[0] == 0
    assert foote(blocks("ABC", 12, np.random.default_rng(1))).tolist() == [0, 12, 24]
    frames = FrameFeatures(
        np.repeat(np.random.default_rng(4).normal(0, 1, (2, 40)), 36 * MEL_HZ, axis=0).astype(np.float32),
        np.repeat(np.random.default_rng(5).normal(0, 1, (2, 60)), 36 * PITCH_HZ, axis=0).astype(np.float32),
        72.0,
    )
    found = clustering(bar_features(frames, np.arange(0, 74, 2.0)))
    assert len(found) == 4
    assert 18 in found


class Watched:
    """A similarity that remembers the blocks it was asked for."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.blocks = matrix, [(0, 0)]

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, at: tuple[slice, slice], /) -> np.ndarray:
        block: np.ndarray = self.matrix[at]
        self.blocks.append(block.shape)
        return block


def test_no_block_holds_all_pairs_of_a_long_track() -> None:
    """Fewer rows than a strip and its surroundings, whatever reads them, so that memory grows with bars."""
    watched = Watched(blocks("ABCABCABC", 50, np.random.default_rng(0)))
    letters(watched, cut_bars(watched, None, Prices()).first, 0.3)
    for first, last in strips(len(watched)):
        blocks_around(watched, first, last)
        repeats(watched, first, last)
    assert max(min(shape) for shape in watched.blocks) <= STRIP + 16 < len(watched) / 3


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    shapes = {"mel": (8, 40), "chroma": (4, 12), "pitch": (4, 60), "rise": (4, 4)}
    for count in (3, 40):
        parts = {name: rng.normal(0, 1, (count, *shape)) for name, shape in shapes.items()}
        bars = BarFeatures(np.arange(count + 1) * 2.0, **parts)
        found = []
        for strip in (7, count):
            monkeypatch.setattr("beatmeter.tasks.structure.similarity.STRIP", strip)
            cut = cut_bars(alike_bars(bars), None, Prices())
            found.append((descriptors(bars), cut.first, cut.sure))
        for strips_of_seven, whole in zip(*found, strict=True):
            assert strips_of_seven == pytest.approx(whole, abs=1e-5)


def test_repeats_are_those_of_every_shift() -> None:
    """Against the diagonals of the matrix, one by one."""
    rng = np.random.default_rng(1)
    for count in (5, 14):
        s = rng.uniform(-1, 1, (count, count))
        found = repeats(s, 0, count).reshape(3, 4, count)
        for k, (ahead, behind, starts, stops) in zip((2, 4, 8), found, strict=True):
            for bar in range(count):
                pairs = []
                for to in range(-k, count + k + 1):
                    if abs(to - bar) >= 3:
                        runs = [[(bar + by + j, to + by + j) for j in range(k)] for by in (0, -k)]
                        pairs.append(
                            [
                                np.mean([s[a, b] for a, b in run])
                                if all(0 <= a < count and 0 <= b < count for a, b in run)
                                else -1.0
                                for run in runs
                            ]
                        )
                here, before = np.array(pairs).T
                rises = here - before
                expected = [here.max(), before.max(), rises.max(), -rises.min()]
                assert [ahead[bar], behind[bar], starts[bar], stops[bar]] == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_distances_are_counted_in_their_true_median(count: int) -> None:
    x = np.random.default_rng(count).normal(0, 1, (count, 3)).round(1)
    every = np.linalg.norm(x[:, None] - x[None, :], axis=2)
    assert Nearness.of(x).typical == pytest.approx(np.median(every) or 1.0, abs=1e-7)


def test_views_of_similarity_are_symmetric_and_bounded() -> None:
    bars = bar_features(
        frame_features([np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)]),
        np.arange(0, 21, 2.0),
    )
    for pairs in similarities(bars).values():
        view = pairs[:, :]
        assert np.allclose(view, view.T)
        assert np.abs(view).max() <= 1 + 1e-9
