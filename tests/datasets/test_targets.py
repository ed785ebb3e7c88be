"""Proxy targets: what a factor on the samples does to them, what is not defined, what is refused, what is
resumed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.columns import number_of, with_targets
from beatmeter.datasets.targets import TARGETS, measure_targets, table
from beatmeter.datasets.targets.measures import RATE, measure
from beatmeter.errors import DataError
from beatmeter.settings import DataConfig

MUSIC = tuple(t.name for t in TARGETS if not t.name.startswith("null_"))


def notes(seconds: float) -> np.ndarray:
    """Decaying notes of different loudness, two a second."""
    rng = np.random.default_rng(0)
    t = np.arange(round(0.5 * RATE)) / RATE
    pitches = 220 * 2 ** (rng.integers(0, 24, round(2 * seconds)) / 12)
    return np.concatenate(
        [rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * f * t) * np.exp(-6 * t) for f in pitches]
    ).astype("f4")


def test_no_target_changes_with_the_level() -> None:
    wave = notes(65)
    values, why, mel = measure(wave, "a")
    quiet, _, soft = measure(wave * np.float32(0.25), "a")
    assert why == {}
    assert set(values) == {t.name for t in TARGETS}
    for name in MUSIC:
        assert quiet[name] == pytest.approx(values[name], rel=1e-3, abs=1e-4), name
    assert values["null_level"] - quiet["null_level"] == pytest.approx(12.04, abs=0.01)
    np.testing.assert_allclose(mel[:64] - soft[:64], 12.04, atol=0.5)
    assert values["onset_density"] == pytest.approx(2, abs=0.3)
    assert values["tempo"] == pytest.approx(np.log2(120), abs=0.05)
    assert values["null_random"] != measure(wave, "b")[0]["null_random"]


def test_what_is_not_defined_has_a_reason() -> None:
    values, why, _ = measure(notes(8), "a")
    assert {"tempo", "harmonic_complexity", "phrase_regularity"} == set(why)
    assert why["tempo"] == "needs 10 s of audio"
    assert "tempo" not in values
    assert set(measure(np.zeros(RATE * 3, "f4"), "a")[1].values()) == {"the recording is silent"}
    steady = np.sin(np.arange(RATE * 12) / 9).astype("f4")
    assert measure(steady, "a")[1]["attack"] == "nothing rises, falls, begins or returns in it"


@pytest.fixture
def some(clips: Path, tmp_path: Path) -> Dataset:
    folder = tmp_path / "music"
    (folder / "3").mkdir(parents=True)
    for path in sorted((clips / "audio").iterdir())[:4]:
        shutil.copy(path, folder / "3" / path.name)
    (folder / "3" / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    return open_dataset(folder, DataConfig(), ("3", "4"), labelled=False)


def test_a_table_is_resumed_and_says_what_it_holds(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.csv"
    real, heard = table.measure, []

    def stopped(wave: np.ndarray, name: str):  # type: ignore[no-untyped-def]
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(name)
        return real(wave, name)

    monkeypatch.setattr(table, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure_targets(some, out)
    assert not out.exists()
    first, heard[:] = list(heard), []
    monkeypatch.setattr(table, "measure", lambda wave, name: (heard.append(name), real(wave, name))[1])
    found = measure_targets(some, out)
    assert not set(first) & set(heard)
    assert (found.rows, list(found.failed)) == (4, ["3/broken.flac"])
    assert "constant" in found.refused["phrases"]
    assert found.refused["phrase_regularity"] == "it is not defined for any track"
    assert {p.name for p in tmp_path.glob("t.*")} == {"t.csv", "t.meta.json", "t.mel.npz"}
    about = json.loads((tmp_path / "t.meta.json").read_text())
    assert about["columns"]["rise"]["unit"] == "log2 dB/s"
    assert list(about["failed"]) == ["3/broken.flac"]
    with np.load(tmp_path / "t.mel.npz") as mel:
        assert mel["vectors"].shape == (4, 128)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    joined = with_targets(some, out)  # the reader that training uses
    track = next(t for t in joined.tracks if t.id == rows[0]["id"])
    assert number_of(track, "centroid") == float(rows[0]["centroid"])


def test_what_cannot_be_measured_is_refused(some: Dataset, tmp_path: Path) -> None:
    broken = Dataset(tuple(t for t in some.tracks if "broken" in t.id), (), "d", "folder", "")
    with pytest.raises(DataError, match=r"nothing of d can be measured: 3/broken.flac"):
        measure_targets(broken, tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"ends with \.csv"):
        measure_targets(some, tmp_path / "t.txt")
    with pytest.raises(DataError, match="--columns = 'composer' is no column"):
        measure_targets(some, tmp_path / "t.csv", ["composer"])
