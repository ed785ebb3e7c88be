"""beatmeter inside other people's programs: as a scikit-learn transformer, as a pipeline of transformers, as
JAMS files, and data sets as mirdata gives them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import beatmeter
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import read_annotation
from beatmeter.datasets.mirdata import initialize
from beatmeter.datasets.synth import render
from beatmeter.datasets.synth.meterless import render_meterless
from beatmeter.errors import AudioError, BeatmeterError, ConfigError, DataError, RunError
from beatmeter.serving.answer import Answer
from beatmeter.serving.answer_jams import answer_jams
from beatmeter.serving.pipeline import NOTHING, MeterPipeline, labelled
from beatmeter.settings import METERS, DataConfig

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = render(3, seconds=12.0)
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, clip.audio, clip.sample_rate)
    return path


@pytest.fixture(scope="module")
def pipe() -> MeterPipeline:
    return beatmeter.pipeline("spectral-lag")


@pytest.fixture(scope="module")
def files(clips: Path) -> list[Path]:
    return sorted((clips / "audio").iterdir())[:12]


# scikit-learn


CHECKS = (  # those that do not fit numbers: `check_estimator` leaves them out for names of files
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_takes_it_for_an_estimator(name: str) -> None:
    getattr(estimator_checks, name)("MeterFeatures", beatmeter.MeterFeatures())


def test_settings_are_seen_by_clone_and_grid_search() -> None:
    made = beatmeter.MeterFeatures(backbone="embedded", layers="4", pooling="stats")
    assert clone(made).get_params() == made.get_params()
    assert clone(made).set_params(layers="2").get_params()["layers"] == "2"


def test_it_is_a_step_of_a_pipeline_and_its_cache_changes_nothing(files: list[Path], tmp_path: Path) -> None:
    plain = beatmeter.MeterFeatures().fit_transform(files[:3])
    assert plain.shape == (3, len(beatmeter.MeterFeatures().get_feature_names_out()))
    assert np.isfinite(plain).all()
    kept = beatmeter.MeterFeatures(cache=tmp_path / "cache")
    labels = [i % 2 for i in range(len(files))]
    classifier = make_pipeline(kept, LogisticRegression(max_iter=1000)).fit(list(map(str, files)), labels)
    assert (classifier.predict(files) == labels).all(), "it tells the files apart that it has learned"
    again = kept.transform(np.array(list(map(str, files)), dtype=object).reshape(-1, 1))
    assert np.array_equal(again[:3], plain)
    assert np.array_equal(kept.transform(files[::-1])[::-1], again)
    assert kept.transform(files[0]).shape == (1, plain.shape[1])


def test_several_poolings_lie_side_by_side(files: list[Path], tmp_path: Path) -> None:
    both, one = (beatmeter.MeterFeatures(pooling=p, cache=tmp_path) for p in ("stats,lag", "lag"))
    assert np.array_equal(
        both.transform(files[:2])[:, -one.transform(files[:2]).shape[1] :], one.transform(files[:2])
    )
    names = both.get_feature_names_out()
    assert names[0].startswith("stats_layer1_")
    assert len(set(names)) == len(names) == both.transform(files[:2]).shape[1]


def test_a_file_that_cannot_be_used_is_an_error_or_a_row_of_nan(files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    with pytest.raises(AudioError, match=r"broken.wav.*errors='nan'"):
        beatmeter.MeterFeatures().transform([files[0], broken])
    found = beatmeter.MeterFeatures(errors="nan").transform([broken, files[0]])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    assert beatmeter.MeterFeatures(errors="nan").transform([]).shape == (0, found.shape[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pooling": "frames"}, "'frames' has a row for every moment"),
        ({"pooling": "lags"}, "'lags' is not possible"),
        ({"errors": "ignore"}, "errors = 'ignore' is not possible"),
        ({"layers": "99"}, "99"),
        ({"backbone": "no/such"}, "no/such"),
    ],
)
def test_wrong_settings_are_told_when_it_is_fitted(settings: dict[str, str], said: str) -> None:
    with pytest.raises(BeatmeterError, match=said):
        beatmeter.MeterFeatures(**settings).fit([])
    with pytest.raises(ConfigError, match="names of files, one a row"):
        beatmeter.MeterFeatures().transform(np.zeros((2, 3)))


# transformers


def test_a_pipeline_answers_as_predict_does_in_every_shape(pipe: MeterPipeline, song: Path) -> None:
    samples, rate = soundfile.read(song, dtype="float32")
    expected = pipe.predictor.predict(samples, rate)
    one = pipe(str(song))
    assert one[0]["label"] == (expected.meter or NOTHING)
    assert {row["label"] for row in one} == {*METERS, NOTHING}
    shapes = [
        song,
        song.read_bytes(),
        (samples, rate),
        {"array": samples, "sampling_rate": rate},
        {"path": str(song)},
    ]
    several = pipe(iter(shapes))
    assert len(several) == len(shapes)
    for rows in several:
        assert [row["label"] for row in rows] == [row["label"] for row in one]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in one], abs=2e-3)
    assert pipe([], top_k=2) == []
    assert [row["label"] for row in pipe((samples, rate), top_k=2)] == [row["label"] for row in one][:2]


def test_no_meter_comes_first_only_when_none_is_heard(pipe: MeterPipeline) -> None:
    rain = render_meterless(1, "rain", seconds=15.0)
    assert pipe((rain, 24_000))[0]["label"] == NOTHING
    scores = np.array([0.9, 0.2])
    heard = labelled(Answer(("3", "4"), scores, 30.0, heard=0.7))
    assert [row["label"] for row in heard] == ["3", "4", NOTHING]
    assert [row["label"] for row in labelled(Answer(("3", "4"), scores, 30.0, heard=0.3))] == [
        NOTHING,
        "3",
        "4",
    ]
    assert [row["label"] for row in labelled(Answer(("3", "4"), scores, 30.0))] == ["3", "4"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros(24_000), "needs its sample rate"),
        ({"array": np.zeros(24_000)}, "lacks 'sampling_rate'"),
        ({"text": "a"}, "'text' holds no audio"),
        (7, "a int is no audio"),
        ([7], "a int is no audio"),
        ("missing.wav", "there is no file missing.wav"),
        (b"RIFF nothing", "bytes of audio"),
        ((np.full(48_000, np.nan), 24_000), "finite"),
    ],
)
def test_what_is_no_audio_is_told(pipe: MeterPipeline, given: object, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        pipe(given)
    with pytest.raises(ConfigError, match="top_k"):
        pipe("song.wav", top_k=0)


# JAMS


def test_answers_are_written_as_jams(typed: Typed, song: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotations"
    status, said, _ = typed("predict", "spectral-lag", song, "--jams", out)
    assert (status, len(said.splitlines())) == (0, 1)
    meter, p = said.rstrip("\n").split("\t")[1], float(said.split("\t")[4])
    value = json.loads((out / "song.jams").read_text())
    (tags,) = value["annotations"]
    assert value["file_metadata"]["duration"] == pytest.approx(12.0)
    assert tags["namespace"] == "tag_open"
    assert tags["annotation_metadata"]["data_source"] == "spectral-lag"
    assert tags["data"][0]["value"] == (f"meter {meter}" if meter != "none" else "no meter")
    assert tags["data"][0]["confidence"] == pytest.approx(p, abs=1e-3)
    assert set(tags["sandbox"]["answer"]["scores"]) == set(METERS)
    events = read_annotation(out / "song.jams").events
    assert events is not None
    assert events.lengths[0] == pytest.approx(12.0)


def test_two_meters_and_none_in_jams() -> None:
    scores = np.array([0.6, 0.9])
    two = json.loads(answer_jams("a", Answer(("3", "4"), scores, 30.0, second="3", heard=0.9), "model"))
    assert [(o["value"], o["confidence"]) for o in two["annotations"][0]["data"]] == [
        ("meter 4", 0.9),
        ("meter 3", 0.6),
    ]
    none = json.loads(answer_jams("a", Answer(("3", "4"), scores, 30.0, second="3", heard=0.2), "model"))
    assert [(o["value"], o["confidence"]) for o in none["annotations"][0]["data"]] == [("no meter", 0.8)]


def test_two_files_never_share_a_jams_file(typed: Typed, song: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(song, tmp_path / "b" / song.name)
    status, out, said = typed("predict", "spectral-lag", song, tmp_path / "b", "--jams", tmp_path / "out")
    assert (status, out) == (2, "")
    assert "would both be written to" in said
    assert not (tmp_path / "out").exists()


# mirdata


def test_a_data_set_has_the_shape_of_a_mirdata_loader(clips: Path) -> None:
    dataset = initialize(clips)
    plain = open_dataset(clips, DataConfig(), METERS)
    assert dataset.track_ids == [t.id for t in plain.tracks]
    tracks = dataset.load_tracks()
    for t in plain.tracks:
        assert (tracks[t.id].meter, tracks[t.id].split, tracks[t.id].audio_path) == (
            t.primary,
            t.split,
            str(t.path),
        )
    track = dataset.track(dataset.track_ids[0])
    samples, rate = track.audio
    assert (samples.ndim, len(samples) / rate) == (1, pytest.approx(7.0))
    assert track.beats is not None
    stored = np.loadtxt(clips / "beats" / f"{Path(track.audio_path).stem}.beats")
    assert np.allclose(track.beats.times, stored[:, 0])
    assert (track.beats.time_unit, track.beats.position_unit) == ("s", "bar_index")
    assert np.array_equal(track.beats.positions, stored[:, 1])
    assert dataset.get_track_splits() == {
        split: [t.id for t in plain.of_split(split)] for split in dict.fromkeys(t.split for t in plain.tracks)
    }
    assert dataset.choice_track().track_id in tracks
    assert dataset.validate(verbose=False) == ({"tracks": {}}, {"tracks": {}})
    with pytest.raises(DataError, match="has no track 'x'"):
        dataset.track("x")


def test_random_splits_keep_groups_whole_and_missing_files_are_named(clips: Path, tmp_path: Path) -> None:
    audio = sorted((clips / "audio").iterdir())[:10]
    for path in audio[:9]:
        shutil.copy(path, tmp_path)
    rows = [f"{path.name},{i % 2 + 3},g{i // 3}" for i, path in enumerate(audio)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,class,group", *rows]))
    dataset = initialize(tmp_path)
    with pytest.raises(NotImplementedError, match="no official split"):
        dataset.get_track_splits()
    parts = dataset.get_random_track_splits([0.7, 0.3], split_names=["train", "test"])
    assert sorted(parts["train"] + parts["test"]) == sorted(dataset.track_ids)
    assert parts["train"]
    assert parts["test"]
    groups = [{dataset.track(id).group for id in ids} for ids in parts.values()]
    assert not groups[0] & groups[1]
    assert dataset.get_random_track_splits([0.7, 0.3], split_names=["train", "test"]) == parts
    assert list(dataset.get_random_track_splits([1.0])) == [0]
    with pytest.raises(ValueError, match="add up to 1"):
        dataset.get_random_track_splits([0.5, 0.4])
    missing, wrong = dataset.validate(verbose=False)
    assert [Path(paths[0]).name for paths in missing["tracks"].values()] == [audio[9].name]
    assert wrong == {"tracks": {}}


def test_a_model_over_columns_is_no_pipeline_of_meter(
    pipe: MeterPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(what: str) -> None:
        raise RunError(f"{what} needs a model of meter")

    monkeypatch.setattr(pipe.predictor, "require_meter", refuse)
    with pytest.raises(RunError, match="a pipeline needs a model of meter"):
        MeterPipeline(pipe.predictor)
