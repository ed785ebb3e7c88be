"""Stores and runs from before a field of the feature spec was recorded: readable, usable where they agree,
never mixed up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hubfolders import write_hub_folder

from beatmeter.cli import cli
from beatmeter.datasets import open_dataset
from beatmeter.errors import BeatmeterError, RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features import model
from beatmeter.features.service import FeatureService
from beatmeter.learning.training import evaluate_run, run
from beatmeter.runtime.config import change
from beatmeter.schema import FeatureSpec
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import RunConfig
from beatmeter.store import Store

CPU = torch.device("cpu")


@contextmanager
def earlier_version() -> Iterator[None]:
    """Feature specs as they were made when schema 1 was all there was."""
    with pytest.MonkeyPatch.context() as patch:
        today = model.feature_spec
        patch.setattr(model, "feature_spec", lambda *given: today(*given).as_of(1))
        yield


def cache(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(cli, ["cache", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def test_an_earlier_store_stays_readable_and_a_new_one_says_why_it_is_begun(
    config: RunConfig, tmp_path: Path
) -> None:
    tracks = list(open_dataset(Path(config.data.path), config.data, config.task.meters).tracks)[:6]
    with earlier_version():
        old, keys, failed = FeatureService(config.features, CPU).ensure(tracks, report=lambda text: None)
        assert failed == {}
    before = old.snapshot().read(keys[tracks[0].id])
    said: list[str] = []
    new, keys, _ = FeatureService(config.features, CPU).ensure(tracks[:2], report=said.append)
    assert new.path != old.path
    (why,) = [line for line in said if "a new store is begun" in line]
    assert str(old.path) in why
    assert "stays readable: made before encoder and code were recorded" in why
    again: list[str] = []
    FeatureService(config.features, CPU).ensure(tracks, report=again.append)
    assert not [line for line in again if "a new store is begun" in line], "the store is there"
    found = Store.open(old.path)
    assert found.spec.schema == 1
    for name, pooled in new.snapshot().read(keys[tracks[0].id]).pooled.items():
        assert (pooled.values == before.pooled[name].values).all(), "the same network made both"
    assert str(old.path) in [one["path"] for one in json.loads(cache("info", tmp_path / "cache", "--json"))]
    assert "sound" in cache("verify", old.path, "--full")
    cache("compact", old.path)
    cache("export", old.path, "--out", tmp_path / "old.h5")
    assert len(Store.open(old.path).keys()) == 6


def test_another_checkpoint_of_the_same_name_begins_a_store_that_names_the_field(
    config: RunConfig, tmp_path: Path
) -> None:
    tracks = list(open_dataset(Path(config.data.path), config.data, config.task.meters).tracks)[:2]
    for heads in (4, 2):
        write_hub_folder(tmp_path / "hub", num_attention_heads=heads)
        said: list[str] = []
        settings = change(config, {"features": {"backbone": str(tmp_path / "hub")}}).features
        FeatureService(settings, CPU).ensure(tracks, report=said.append)
    assert [line for line in said if "encoder.num_attention_heads: 4 != 2" in line]
    assert len(list((tmp_path / "cache").glob("hub-*"))) == 2


def test_an_earlier_run_predicts_is_evaluated_and_goes_on(config: RunConfig, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"training": {"epochs": 2}}
    with earlier_version():
        first = run(change(config, quick), tmp_path / "old", CPU, report=lambda text: None)
    about = first.folder.about()
    assert about["spec"]["schema"] == 1
    scores = first.folder.predictions("test").read_text()
    evaluate_run(tmp_path / "old", CPU, ["test"], report=lambda text: None)
    assert first.folder.predictions("test").read_text() == scores, "features made anew are the same"
    wave = next(t.path for t in open_dataset(Path(config.data.path), config.data, config.task.meters).tracks)
    (_, answer), *_ = Predictor.load(tmp_path / "old").predict_files([wave])
    assert not isinstance(answer, BeatmeterError)
    run(first.folder.config(), tmp_path / "old", CPU, resume=True, report=lambda text: None)
    assert FeatureSpec.from_json(first.folder.about()["spec"]).schema > 1
    onwards = change(config, {"training": {"epochs": 1, "start": str(tmp_path / "old")}})
    run(onwards, tmp_path / "next", CPU, report=lambda text: None)
    folder = RunFolder.open(tmp_path / "old")
    folder.write_about(about | {"spec": about["spec"] | {"weights": "0" * 64}})
    with pytest.raises(RunError, match="the features changed since"):
        run(first.folder.config(), tmp_path / "old", CPU, resume=True, report=lambda text: None)
