"""The Python door: `beatmeter.load` and `beatmeter.predict`, text and Path alike everywhere, and nothing
heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import soundfile

import beatmeter
from beatmeter.audio.identity import track_keys
from beatmeter.datasets import open_dataset
from beatmeter.datasets.files import find_audio
from beatmeter.datasets.splits import read_split
from beatmeter.datasets.synth import render
from beatmeter.errors import AudioError, BeatmeterError, ConfigError, RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.ensemble import Ensemble
from beatmeter.evaluation.corrections import Corrections
from beatmeter.evaluation.predictions import open_predictions, read_predictions, sidecar, write_predictions
from beatmeter.evaluation.report.subject import Subject
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.paths import as_path, as_paths
from beatmeter.schema import ClassPredictions
from beatmeter.serving.models import SHIPPED, EnsembleFolder, find_model
from beatmeter.settings import DataConfig, TaskConfig
from beatmeter.store import Store, list_stores


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = render(3, seconds=12.0)
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, clip.audio, clip.sample_rate)
    return path


def test_importing_is_light_and_shows_what_there_is() -> None:
    code = (
        "import sys, beatmeter; print('numpy' in sys.modules, 'torch' in sys.modules, {'load', 'predict', "
        "'Predictor'} <= set(dir(beatmeter)))"
    )
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split() == ["False", "False", "True"]
    assert beatmeter.Predictor.load.__name__ == "load"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        beatmeter.lod  # noqa: B018


def test_a_song_by_text_by_path_in_a_list_and_as_samples(song: Path) -> None:
    model = beatmeter.load("spectral-lag")
    one = beatmeter.predict(str(song), model=model)
    assert isinstance(one, beatmeter.Answer)
    samples, rate = soundfile.read(song, dtype="float32")
    others = [
        beatmeter.predict(song, model="spectral-lag"),
        beatmeter.predict(song, model=SHIPPED / "spectral-lag"),
        *beatmeter.predict([str(song), song], model=model),
        *beatmeter.predict(iter((song,)), model=model),
        beatmeter.predict(samples, rate, model=model),
        beatmeter.predict(np.column_stack([samples, samples]), sample_rate=rate, model=model),
        *(answer for _, answer in model.predict_files(str(song))),
    ]
    assert len(others) == 8
    for answer in others:
        assert np.allclose(answer.scores, one.scores, atol=2e-3)
    assert beatmeter.predict([], model=model) == []


def test_the_default_model_is_the_best_that_ships(song: Path) -> None:
    assert np.allclose(
        beatmeter.predict(song).scores,
        beatmeter.load().predict(*soundfile.read(song, dtype="float32")).scores,
        atol=2e-3,
    )


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            lambda song: beatmeter.predict(song.with_name("sonk.wav"), model="spectral-lag"),
            AudioError,
            "there is no file .*sonk.wav",
        ),
        (
            lambda song: beatmeter.predict([song, "missing.wav"], model="spectral-lag"),
            AudioError,
            "there is no file missing.wav",
        ),
        (lambda song: beatmeter.predict(song.parent, model="spectral-lag"), AudioError, "is a folder"),
        (lambda song: beatmeter.predict("", model="spectral-lag"), ConfigError, "'' is not a path"),
        (
            lambda song: beatmeter.predict(None, model="spectral-lag"),
            ConfigError,
            "None is neither a path nor several",
        ),
        (lambda song: beatmeter.predict([song, 3], model="spectral-lag"), ConfigError, "3 is not a path"),
        (lambda song: beatmeter.predict(np.zeros(24_000)), AudioError, "needs its sample rate"),
        (lambda song: beatmeter.predict(song, 24_000), ConfigError, "a sample rate belongs to"),
        (
            lambda song: beatmeter.predict(np.zeros((2, 3, 4)), 24_000, model="spectral-lag"),
            AudioError,
            "shape .2, 3, 4.",
        ),
        (
            lambda song: beatmeter.predict(np.array(["a", "b"]), 24_000, model="spectral-lag"),
            AudioError,
            "is no audio",
        ),
        (
            lambda song: beatmeter.predict(np.full(48_000, np.nan), 24_000, model="spectral-lag"),
            AudioError,
            "finite",
        ),
        (
            lambda song: beatmeter.predict(np.zeros(48_000), 0, model="spectral-lag"),
            AudioError,
            "a sample rate of 0 Hz",
        ),
        (
            lambda song: beatmeter.predict(np.zeros(0), 24_000, model="spectral-lag"),
            AudioError,
            "too short: 0 samples",
        ),
        (
            lambda song: beatmeter.load("spectrallag"),
            RunError,
            "there is no model 'spectrallag'. Did you mean 'spectral-lag'",
        ),
        (lambda song: beatmeter.load("runs/frist"), RunError, "there is no folder runs/frist"),
        (lambda song: beatmeter.load(song), RunError, "is a file, and a model is a folder"),
        (lambda song: beatmeter.load(song.parent), RunError, "holds neither config.toml nor ensemble.json"),
        (lambda song: beatmeter.load(7), ConfigError, "7 is not a path"),
        (lambda song: beatmeter.load("spectral-lag", device="gpu"), ConfigError, "unknown device"),
        (lambda song: beatmeter.load("spectral-lag", priors={"2": 0.5}), BeatmeterError, "no class '2'"),
        (lambda song: beatmeter.load("spectral-lag", abstain=1.5), BeatmeterError, "share"),
    ],
)
def test_what_is_wrong_is_an_error_of_ours(
    song: Path, given: object, kind: type[BeatmeterError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        given(song)  # type: ignore[operator]


def test_whole_numbers_are_taken_as_the_sound_that_they_are(song: Path) -> None:
    model = beatmeter.load("spectral-lag")
    loud, rate = soundfile.read(song, dtype="int16")
    assert np.allclose(
        beatmeter.predict(loud, rate, model=model).scores,
        beatmeter.predict(song, model=model).scores,
        atol=2e-3,
    )


def test_paths_are_never_letters() -> None:
    assert as_paths("song.mp3") == [Path("song.mp3")] == as_paths(Path("song.mp3"))
    assert as_paths(("a", Path("b"))) == [Path("a"), Path("b")]
    assert as_path("a/b") == Path("a/b")


def test_text_and_path_alike_in_every_reader(tmp_path: Path, song: Path) -> None:
    p = ClassPredictions(
        classes=("3", "4"),
        ids=("a", "b"),
        groups=("a", "b"),
        sources=("", ""),
        split="test",
        targets=np.eye(2),
        scores=np.array([[0.9, 0.2], [0.1, 0.7]]),
        primary=np.array([0, 1]),
        times=np.full((2, 2), np.nan),
    )
    file = tmp_path / "run" / "predictions" / "test.csv"
    (tmp_path / "corrections.csv").write_text("id,label\na,4\n")
    (tmp_path / "split.csv").write_text("id,group,split\na,a,test\n")
    (tmp_path / "run" / "config.toml").parent.mkdir()
    (tmp_path / "run" / "config.toml").write_text("seed = 3\n")
    for kind in (str, Path):
        assert write_predictions(kind(file), p)
        assert sidecar(kind(file)).exists()
        assert read_predictions(kind(file)).ids == open_predictions(kind(tmp_path / "run")).ids == p.ids
        assert RunFolder.open(kind(tmp_path / "run")).config().seed == 3
        assert RunFolder(kind(tmp_path / "run")).best == tmp_path / "run" / "best.safetensors"
        assert EnsembleFolder(kind(SHIPPED / "ensemble")).exists()
        assert find_model(kind("spectral-lag")) == SHIPPED / "spectral-lag"
        assert Ensemble.load(kind(SHIPPED / "ensemble" / "ensemble.json")).members
        calibration = Calibration.load(kind(SHIPPED / "spectral-lag" / "calibration.json"))
        calibration.save(kind(tmp_path / "calibration.json"))
        assert Corrections.read(kind(tmp_path / "corrections.csv")).labels == {"a": "4"}
        assert Subject.read(kind(file)).corrected_by(kind(tmp_path / "corrections.csv")).corrected
        assert read_split(kind(tmp_path / "split.csv")) == {"a": "test"}
        assert find_audio(kind(song.parent)) == [song]
        assert (
            open_dataset(kind(song), DataConfig(), TaskConfig().meters, labelled=False).tracks[0].path == song
        )
        assert len(track_keys(kind(song), kind(tmp_path))) == 1
        assert list(list_stores(kind(tmp_path))) == []
        with pytest.raises(BeatmeterError, match="nowhere"):
            Store.open(kind(tmp_path / "nowhere"))


def test_one_extra_dataset_given_as_text_is_one(tmp_path: Path, song: Path) -> None:
    config = DataConfig(extra=str(song))  # type: ignore[arg-type]
    assert len(open_dataset(song, config, TaskConfig().meters, labelled=False).tracks) >= 1


def test_type_checkers_see_the_door() -> None:
    for name in ("load", "predict"):
        assert "model" in getattr(beatmeter, name).__annotations__
    assert get_type_hints(as_path)["return"] is Path
    assert (Path(beatmeter.__file__).parent / "py.typed").exists()
