"""Pseudo-labels: known where a model is sure, right more often than labels with planted errors, and learned
from as any other data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import (
    Annotation,
    Folders,
    Grid,
    Provenance,
    find_annotations,
    write_annotation,
)
from beatmeter.datasets.synth import render
from beatmeter.evaluation.metrics.beats import f_measure
from beatmeter.schema import Curves, MarkList
from beatmeter.serving.pseudo_labels import BARS, bar_confidence, pseudo_grid
from beatmeter.settings import METERS, DataConfig
from beatmeter.tasks.structure.decoding import Beats

if TYPE_CHECKING:
    from conftest import Typed

RATE, BEAT = 25.0, 0.5


def heard(bars: list[float]) -> tuple[Curves, Beats]:
    """Bars of four beats whose curves have these probabilities at beats, and .05 between."""
    times = 1.0 + BEAT * np.arange(4 * len(bars) + 1)
    values = np.full((round((times[-1] + 2) * RATE), 2), 0.05)
    for beat, time in enumerate(times):
        high = bars[min(beat // 4, len(bars) - 1)]
        values[round(time * RATE), 0] = high
        if beat % 4 == 0:
            values[round(time * RATE), 1] = high
    one = {"ids": ("a",), "groups": ("a",), "sources": ("",), "split": "", "times": np.zeros((1, 2))}
    curves = Curves(
        **one,
        names=("beat", "downbeat"),
        rate=RATE,
        starts=np.zeros(1),
        values=(values,),
        truth=(MarkList(),),
    )
    return curves, Beats(times, 1 + np.arange(len(times)) % 4, np.ones(len(times)), "4")


def test_stretches_of_sure_bars_are_known_and_nothing_else() -> None:
    sure, doubt = 0.95, 0.4
    curves, beats = heard([doubt, *[sure] * 6, doubt, *[sure] * (BARS - 1), doubt, doubt, *[sure] * BARS])
    np.testing.assert_allclose(
        bar_confidence(curves, beats)[[0, 2, 7, 16]], [doubt, sure, doubt, sure], atol=0.15
    )
    grid = pseudo_grid(curves, beats, "a teacher")
    assert grid is not None
    bar = 4 * BEAT
    begin, end = 1.0 + np.array([[1, 7], [13, 17]]).T * bar
    np.testing.assert_allclose(grid.known, np.stack([begin, end], axis=1), atol=0.021)
    assert grid.is_known(grid.times).all()
    assert len(grid) == 6 * 4 + 1 + BARS * 4 + 1, "the downbeat after a stretch belongs to it"
    assert (grid.provenance.tier, grid.provenance.source) == (3, "a teacher")
    assert grid.provenance.confidence == pytest.approx(sure, abs=0.01)
    assert pseudo_grid(*heard([*[sure] * (BARS - 1), doubt, sure]), "") is None
    assert pseudo_grid(curves, Beats(np.zeros(0), np.zeros(0, int), np.zeros(0), "4"), "") is None


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Clips in 4, and their beats."""
    folder, beats = tmp_path_factory.mktemp("music"), {}
    for seed in (1, 2, 3, 4):
        clip = render(seed, meter=4, seconds=20.0, kind="single")
        soundfile.write(folder / f"{seed}.wav", clip.audio, clip.sample_rate, subtype="PCM_16")
        beats[str(seed)] = np.asarray(clip.beats, float)
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder, beats


def planted(beats: np.ndarray, seed: int) -> np.ndarray:
    """A tenth of the beats 80 to 150 ms off, a tenth missing."""
    rng = np.random.default_rng(seed)
    wrong, dropped = np.split(rng.permutation(len(beats))[: 2 * max(1, len(beats) // 10)], 2)
    moved = beats.copy()
    moved[wrong] += rng.uniform(0.08, 0.15, len(wrong)) * rng.choice([-1, 1], len(wrong))
    return np.delete(moved, dropped)


def test_a_teacher_mends_planted_errors_where_it_is_sure(
    music: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, typed: Typed
) -> None:
    folder, truth = music
    out = tmp_path / "pseudo"
    status, said, left = typed("data", "annotations", "pseudo", folder, "--out", out)
    assert status == 1
    assert "left out" in left
    assert "broken.wav" in left
    assert "tier 3 by beatmeter beats" in said
    tracks = open_dataset(out, DataConfig(), METERS, labelled=False).tracks
    grids = {id: a.grid for id, a in find_annotations(tracks, Folders()).items()}
    assert 2 <= len(grids) <= len(truth)
    scores = []
    for id, grid in grids.items():
        assert isinstance(grid, Grid)
        right, label = (x[grid.is_known(x)] for x in (truth[id], planted(truth[id], int(id))))
        scores.append([f_measure(right, x, 0.0) for x in (grid.times, label)])
    teacher, labels = np.mean(scores, axis=0)
    assert teacher > labels, "what the teacher heard is right more often than the labels"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beatmeter.serving.pseudo_labels.bar_confidence", None)
        again = typed("data", "annotations", "pseudo", *sorted(folder.glob("?.wav")), "--out", out)
    assert again[1] == said, "nothing is heard twice"


def test_where_nothing_is_sure_nothing_is_written(
    music: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, typed: Typed
) -> None:
    status, _, said = typed(
        "data", "annotations", "pseudo", music[0] / "1.wav", "--out", tmp_path / "new", "--sure", "1"
    )
    assert status == 2
    assert "the model is sure of no beats in 1 file" in said
    assert not (tmp_path / "new" / "manifest.csv").exists()
    status, _, said = typed(
        "data", "annotations", "pseudo", music[0] / "broken.wav", "--out", tmp_path / "new"
    )
    assert (status, "none of 1 file could be heard" in said) == (2, True)
    (tmp_path / "mine.txt").write_text("mine")
    status, _, said = typed("data", "annotations", "pseudo", music[0], "--out", tmp_path)
    assert (status, "holds other files" in said) == (2, True)


def test_what_others_have_annotated_is_not_written_over(
    music: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, typed: Typed
) -> None:
    """A data set of a DJ program has the same form, and so has a folder of annotations by ear."""
    mine = Annotation(
        "1", 20.0, Grid(np.array([1.0, 2.0]), np.array([1, 2]), provenance=Provenance("by ear"))
    )
    asked = ("data", "annotations", "pseudo", music[0] / "1.wav", "--out", tmp_path)
    write_annotation(tmp_path / "annotations" / "1.json", mine)
    before = (tmp_path / "annotations" / "1.json").read_bytes()
    status, _, said = typed(*asked)
    assert (status, "was not written by a teacher" in said) == (2, True)
    (tmp_path / "manifest.csv").write_text("id,file,source\n1,audio/1.wav,rekordbox\n")
    status, _, said = typed(*asked)
    assert (status, "is a data set of rekordbox" in said) == (2, True)
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "1.wav").write_bytes(b"music")
    status, _, said = typed(*asked)
    assert (status, "holds other files" in said) == (2, True)
    assert (tmp_path / "annotations" / "1.json").read_bytes() == before
