"""What lies below the first layer that trains is computed once: training with it kept gives the losses and
weights that training without gives, and says in a line where it cannot be kept."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hubfolders import write_hub_folder
from noisefolders import RATE, write_noises

from beatmeter.datasets import open_dataset
from beatmeter.errors import ConfigError, RunError, StoreError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.poolings.states import NAME
from beatmeter.learning.loop import fit_standardisation, train_epoch
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import optimiser_for
from beatmeter.learning.sources import Source, Streamed, open_source
from beatmeter.learning.training import evaluate_run, run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.store import Store
from beatmeter.store.folder import Folder
from beatmeter.store.store import list_stores
from beatmeter.tasks import TASKS

CPU = torch.device("cpu")
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0}


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shorter than a chunk, one chunk, a tail that overlaps, several windows."""
    return write_noises(tmp_path_factory.mktemp("kept"), (1.7, 5.1, 6.2, 9.3))


def settings(folder: Path, data: Path, **adapter: object) -> RunConfig:
    values = {
        "regime": "streamed",
        "data": {"path": str(data)},
        "features": {
            "backbone": str(folder),
            "cache": str(folder.parent / "cache"),
            "window": 1,
            "poolings": ("stats", "lag", "mel@3"),
        },
        "head": {
            "poolings": ("stats", "lag", "mel"),
            "channels": 4,
            "hidden": 8,
            "dilations": (1, 2),
            "dropout": 0.2,
        },
        "augment": {"shift": 0.0, "noise": 0.0, "gain": 0.0},
        "adapter": {"r": 2, "dropout": 0.1, **adapter},
        "training": {"batch": 2, "accumulation": 2, "head_lr": 1e-2, "adapter_lr": 1e-2, "epochs": 2},
    }
    return change(RunConfig(), values)


def opened(config: RunConfig) -> tuple[Streamed, list[Track]]:
    tracks = list(open_dataset(Path(config.data.path), config.data, config.task.meters).tracks)
    torch.manual_seed(0)
    source = open_source(config, CPU, quiet)
    assert isinstance(source, Streamed)
    assert source.prepare(tracks, quiet) == {}
    return source, tracks


def trained(config: RunConfig) -> tuple[Source, list[float], dict[str, torch.Tensor]]:
    """Losses of two epochs and what they made of the weights."""
    source, tracks = opened(config)
    task = TASKS["meter"](config)
    model = Model(task, task.study(tracks), source, task.head(source.spec))
    fit_standardisation(model, tracks, 2)
    optimiser, truth = optimiser_for(model, config), task.truth(tracks, CPU)
    losses = [train_epoch(model, optimiser, tracks, truth, config, epoch, 2)[0] for epoch in (1, 2)]
    return source, losses, model.tensors()


@pytest.mark.parametrize(
    ("pre_norm", "adapter", "after"),
    [(True, {"kind": "last_layers", "layers": 1}, 2), (False, {"lora_layers": 0}, 0)],
)
def test_training_with_kept_states_is_training_without(
    pre_norm: bool, adapter: dict[str, object], after: int, noises: Path, tmp_path: Path
) -> None:
    """With crops and shifts along lag, dropout of the head and of LoRA, tracks of odd lengths, sequences."""
    folder = write_hub_folder(tmp_path / "hub", pre_norm, **STILL)
    plain, losses, weights = trained(settings(folder, noises, keep="no", **adapter))
    source, again, other = trained(settings(folder, noises, **adapter))
    assert isinstance(plain, Streamed)
    assert isinstance(source, Streamed)
    assert plain.kept is None
    assert source.kept is not None, "auto keeps them"
    assert source.kept.after == after
    assert losses[0] != losses[1]
    assert again == pytest.approx(losses, rel=1e-5)
    for name, value in weights.items():
        # the softmax cancels this bias: its gradient is rounding, which Adam scales up
        if name.endswith("k_proj.bias"):
            continue
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)


def test_states_below_a_base_in_bfloat16_are_kept_whole(noises: Path, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "hub", **STILL)
    found = []
    for keep in ("yes", "no"):
        config = settings(folder, noises, keep=keep, lora_layers=1)
        source, tracks = opened(change(config, {"features": {"dtype": "bfloat16"}}))
        source.encoder.eval()
        with torch.inference_mode():
            found.append(source.encoder(next(source.batches(tracks, [np.arange(4)])).inputs)["stats"])
        if source.kept is not None:
            assert source.kept.spec.store_dtype == "float16"
            kept = next(source.batches(tracks, [np.arange(4)])).inputs[0]
            states = torch.from_numpy(kept.states)
            assert torch.allclose(states.bfloat16().half(), states, rtol=0, atol=1e-6), "nothing is rounded"
    assert torch.allclose(found[0], found[1], rtol=2e-3, atol=2e-2)


def test_later_runs_read_what_one_has_kept(tmp_path: Path) -> None:
    """With another seed and another head; and a run that is only heard keeps nothing and answers the same."""
    folder = write_hub_folder(tmp_path / "hub", **STILL)
    config = change(
        settings(folder, write_noises(tmp_path / "music", [1.2] * 8), lora_layers=1),
        {"split": {"val": 0.25, "test": 0.25}, "head": {"poolings": ("lag",)}, "training": {"epochs": 1}},
    )
    first = run(config, tmp_path / "first", CPU, report=quiet)
    about = first.folder.about()["kept"]
    assert about["layer"] == 2
    said: list[str] = []
    run(change(config, {"seed": 1, "head": {"channels": 8}}), tmp_path / "second", CPU, report=said.append)
    assert any("0 to extract, 8 present" in line for line in said), said
    assert any(line.startswith("the front end and layers 1 to 2: ") for line in said)
    (store,) = list_stores(tmp_path / "cache")
    assert isinstance(store, Store)
    assert (store.spec.fingerprint, store.snapshot().id) == (about["fingerprint"], about["snapshot"])
    assert store.spec[NAME].row_shape == (1, 375, 32)
    assert store.spec["lag"].layers == (1, 2)
    told = read_predictions(first.folder.predictions("test")).scores
    assert not (tmp_path / "cache" / "waves").exists(), "no wave is kept beside them"
    shutil.rmtree(store.path)
    evaluate_run(tmp_path / "first", CPU, ["test"], report=quiet)
    assert np.abs(read_predictions(first.folder.predictions("test")).scores - told).max() < 1e-5
    assert list(list_stores(tmp_path / "cache")) == []


def test_frozen_training_is_not_served_by_kept_states(noises: Path, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "hub", **STILL)
    config = change(settings(folder, noises, lora_layers=1), {"features": {"layers": "1-2"}})
    tracks = list(open_dataset(noises, config.data, config.task.meters).tracks)[:2]
    for regime in ("streamed", "frozen"):
        said: list[str] = []
        source = open_source(change(config, {"regime": regime}), CPU, quiet)
        assert source.prepare(tracks, said.append) == {}
        assert not any("a new store is begun" in line for line in said)
    assert len(list(list_stores(tmp_path / "cache"))) == 2


def test_features_and_states_come_of_one_pass(noises: Path, tmp_path: Path) -> None:
    """`features.states` keeps them with the features of all layers; the trained network does not fill that
    store."""
    folder = write_hub_folder(tmp_path / "hub", **STILL)
    config = change(settings(folder, noises, lora_layers=1), {"features": {"states": 2}})
    tracks = list(open_dataset(noises, config.data, config.task.meters).tracks)[:2]
    found = []
    for regime, cache in (("frozen", "both"), ("streamed", "both"), ("streamed", "own")):
        values = {"regime": regime, "features": {"cache": str(tmp_path / cache)}}
        said: list[str] = []
        source = open_source(change(config, values), CPU, quiet)
        assert source.prepare(tracks, said.append) == {}
        assert any("0 to extract, 2 present" in line for line in said) == (len(found) == 1)
        if isinstance(source, Streamed):
            assert source.kept is not None
            assert (source.kept.service.backbone is not source.backbone) == (cache == "both")
        source.encoder.eval()
        with torch.inference_mode():
            found.append(source.features(next(source.batches(tracks, [np.arange(2)]))))
    for name in ("stats", "lag", "mel"):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[2][name], found[1][name], rtol=1e-4, atol=1e-5)
    assert len(list(list_stores(tmp_path / "both"))) == 1
    for states, why in ((3, "hub has 3 layers"), (-2, "is no layer")):
        with pytest.raises(ConfigError, match=why):
            open_source(change(config, {"features": {"states": states}}), CPU, quiet)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"augment": {"shift": 0.5, "gain": 6.0}},
            "augment.shift = 0.5, augment.gain = 6 would change the audio",
        ),
        ({"adapter": {"kind": "full"}}, "adapter.kind = full trains the front end"),
        ({"features": {"backbone": "dropping"}}, "training drops some states of it"),
        (
            {"features": {"poolings": ("rhythm",)}, "head": {"poolings": ("rhythm",)}},
            "rhythm pooling takes all its layers at once",
        ),
        ({"adapter": {"r": 3}}, "the layers of hub cannot be entered half-way"),
    ],
)
def test_where_nothing_can_be_kept_a_line_says_why(
    values: dict[str, dict[str, object]], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = write_hub_folder(tmp_path / "hub", **STILL)
    if "backbone" in values.get("features", {}):
        values = {"features": {"backbone": str(write_hub_folder(tmp_path / "dropping"))}}
    if "half-way" in why:  # as other architectures
        monkeypatch.setattr(Hubert, "resumes", False)
    config = change(settings(hub, tmp_path), values)
    said: list[str] = []
    source = open_source(config, CPU, said.append)
    assert isinstance(source, Streamed)
    assert source.kept is None
    assert [line for line in said if "computed in every epoch" in line] == [
        line for line in said if line.startswith(f"what is frozen is computed in every epoch: {why}")
    ]
    assert len(said) == 2
    sure = change(config, {"adapter": {"keep": "yes"}})
    if "drops" in why:
        source = open_source(sure, CPU, quiet)
        assert isinstance(source, Streamed)
        assert source.kept is not None
        return
    with pytest.raises(ConfigError, match=f"adapter.keep = yes is not possible: {why}") as told:
        open_source(sure, CPU, quiet)
    assert "adapter.keep=auto" in told.value.hint


def _read_only(*words: object) -> None:
    raise StoreError("the disk is read-only", "Mount it anew.")


def test_a_disk_that_is_nearly_full_and_tracks_that_are_too_long(
    noises: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(write_hub_folder(tmp_path / "hub", **STILL), noises)
    config = change(config, {"training": {"longest": 7.0}})
    tracks = list(open_dataset(noises, config.data, config.task.meters).tracks)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 100_000))
        with pytest.raises(RunError, match=r"cannot be kept: it takes 0\.0 GB, and 0\.0 GB are free"):
            open_source(change(config, {"adapter": {"keep": "yes"}}), CPU, quiet).prepare(tracks, quiet)
        said: list[str] = []
        source = open_source(config, CPU, quiet)
        assert len(source.prepare(tracks, said.append)) == 1
        assert said[0].startswith("what is frozen is computed in every epoch: it takes")
        assert next(iter(source.batches(tracks[:1], [np.arange(1)]))).inputs[0].wave.shape == (1.7 * RATE,)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put_if_absent", _read_only)
        said = []
        source = open_source(
            change(config, {"features": {"cache": str(tmp_path / "other")}}), CPU, said.append
        )
        assert "computed in every epoch: the disk is read-only" in said[-1]
        assert isinstance(source, Streamed)
        assert source.kept is None
    for longest in (7.0, 600.0, 7.0):  # told by the header, then by the store
        source = open_source(change(config, {"training": {"longest": longest}}), CPU, quiet)
        reasons = list(source.prepare(tracks, quiet).values())
        assert len(reasons) == (longest < 10)
        assert all("lasts 9 s, and tracks of at most 7 s are held whole" in reason for reason in reasons)
