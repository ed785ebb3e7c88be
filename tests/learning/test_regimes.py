"""The two regimes are one: before the first step of an adapter, streamed features give the frozen ones'
logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hubfolders import write_hub_folder

from beatmeter.datasets import open_dataset
from beatmeter.errors import FingerprintError, RunError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.loop import fit_standardisation, train_epoch
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import optimiser_for
from beatmeter.learning.sources import Source, open_source
from beatmeter.learning.training import evaluate_run, run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def odd_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of every kind of length: shorter than a chunk, one chunk, a long tail, several windows; other
    rates; stereo."""
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    for i, (seconds, rate, meter) in enumerate(
        [(1.7, 24_000, 3), (5.1, 24_000, 4), (9.3, 22_050, 5), (16.0, 44_100, 7), (23.4, 24_000, 3)]
    ):
        t = np.arange(round(seconds * rate)) / rate
        wave = 0.3 * np.sin(2 * np.pi * 220 * t) * np.exp(
            -6 * (t % (0.3 + 0.1 * i))
        ) + 0.01 * rng.standard_normal(len(t))
        (folder / str(meter)).mkdir(exist_ok=True)
        soundfile.write(
            folder / str(meter) / f"{i}.wav", np.stack([wave, 0.5 * wave], 1) if i % 2 else wave, rate
        )
    return folder


def backbone_settings(name: str, folder: Path) -> dict[str, object]:
    if name in ("embedded", "spectral"):
        return {"backbone": name}
    pre_norm = name == "pre-LN folder"
    write_hub_folder(folder / name.replace(" ", "-"), pre_norm=pre_norm, norm="old")
    return {"backbone": str(folder / name.replace(" ", "-"))}


def sources(config: RunConfig, tracks: list[Track]) -> tuple[Source, Source]:
    found = []
    for regime in ("frozen", "streamed"):
        source = open_source(change(config, {"regime": regime}), CPU, lambda text: None)
        assert source.prepare(tracks, lambda text: None) == {}
        found.append(source)
    return found[0], found[1]


@pytest.mark.parametrize("adapter", ["lora", "last_layers", "full"])
@pytest.mark.parametrize("name", ["embedded", "pre-LN folder", "post-LN folder"])
def test_streamed_gives_frozen_logits_before_the_first_step(
    name: str, adapter: str, odd_clips: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    values = {
        "features": {
            **backbone_settings(name, tmp_path),
            "cache": str(tmp_path / "cache"),
            "window": 2,
            "statistics": ("mean", "max", "std"),
        },
        "head": {"poolings": ("stats", "lag")},
        "adapter": {"kind": adapter, "r": 4, "layers": 1},
    }
    config = change(RunConfig(), values)
    tracks = list(open_dataset(odd_clips, config.data, config.task.meters).tracks)
    frozen, streamed = sources(config, tracks)
    assert frozen.spec == streamed.spec
    task = TASKS["meter"](config)
    head, state = task.head(frozen.spec), task.study(tracks)
    fit_standardisation(Model(task, state, streamed, head), tracks, 2)
    fitted = streamed.standardiser
    fit_standardisation(Model(task, state, frozen, head), tracks, 8)
    streamed.standardiser = frozen.standardiser
    one, two = (
        Model(task, state, frozen, head).outputs(tracks, 4),
        Model(task, state, streamed, head).outputs(tracks, 2),
    )
    assert np.ptp(one) > 0.05, "the logits tell tracks apart, so equality says something"
    assert np.abs(one - two).max() < 4e-3  # the store keeps float16
    for pooling, scale in frozen.standardiser.scales.items():
        mean = frozen.standardiser.means[pooling]
        clear = scale < 20  # of smaller deviations float16 keeps too few digits
        rounding = (
            mean.abs() * scale * 2**-11
        )  # of float16, in deviations: features far from zero keep fewer digits
        off = (scale / fitted.scales[pooling] - 1).abs()
        assert bool((off[clear] < 1e-2 + rounding[clear]).all())
        assert torch.allclose(mean, fitted.means[pooling], rtol=1e-2, atol=2e-3)


def test_the_guard_notices_another_order_of_layers(odd_clips: Path, tmp_path: Path) -> None:
    config = change(
        RunConfig(),
        {
            "features": {"backbone": "embedded", "cache": str(tmp_path / "cache"), "window": 2},
            "head": {"poolings": ("stats",)},
        },
    )
    tracks = list(open_dataset(odd_clips, config.data, config.task.meters).tracks)
    frozen, streamed = sources(config, tracks)
    features = next(frozen.batches(tracks, [np.arange(5)])).inputs["stats"].float()
    waves = next(streamed.batches(tracks, [np.arange(5)])).inputs
    with torch.inference_mode():
        other = streamed.encoder(waves)["stats"].flip(1)
    assert (features - other).abs().max() > 0.05


@pytest.mark.parametrize("regime", ["frozen", "streamed"])
def test_accumulated_batches_move_the_weights_as_one_large_batch_does(
    regime: str, clips: Path, config: RunConfig, tmp_path: Path
) -> None:
    """With crops, shifts, noise and dropout of the head: random draws belong to the step, not to the
    batch."""
    write_hub_folder(tmp_path / "hub")
    quiet = {
        "regime": regime,
        "features": {"backbone": str(tmp_path / "hub")},
        "head": {"dropout": 0.3, "noise": 0.1, "standardise": False},
        "adapter": {"kind": "last_layers", "layers": 1},
    }
    states = []
    for batch, accumulation in ((6, 1), (2, 3), (1, 6)):
        cfg = change(
            change(config, quiet), {"training": {"batch": batch, "accumulation": accumulation}, "seed": 1}
        )
        tracks = [t for t in open_dataset(clips, cfg.data, cfg.task.meters).tracks if t.split == "train"][
            :8
        ]  # a group of 6 and one of 2
        source = open_source(cfg, CPU, lambda text: None)
        source.prepare(tracks, lambda text: None)
        task = TASKS["meter"](cfg)
        torch.manual_seed(3)
        model = Model(task, task.study(tracks), source, task.head(source.spec))
        for module in source.encoder.modules():  # the backbone's own dropout draws for a batch
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        optimiser = optimiser_for(model, cfg)
        targets = task.truth(tracks, CPU)
        train_epoch(model, optimiser, tracks, targets, cfg, 1, batch)
        states.append(model.tensors())
    for other in states[1:]:
        for key, value in states[0].items():
            assert torch.allclose(value, other[key], atol=2e-6), key


def test_lora_trains_only_its_factors_and_lowers_the_loss(config: RunConfig, tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    values = {
        "regime": "streamed",
        "limit": 8,
        "features": {"backbone": str(tmp_path / "hub")},
        "head": {"dropout": 0.0},
        "augment": {"crop": 0.0, "shift": 0.0, "noise": 0.0, "gain": 0.0, "lag_shift": 0},
        "training": {
            "epochs": 8,
            "patience": 8,
            "head_lr": 2e-2,
            "adapter_lr": 5e-3,
            "batch": 8,
            "accumulation": 1,
        },
    }
    cfg = change(config, values)
    lines: list[str] = []
    outcome = run(cfg, tmp_path / "run", CPU, report=lines.append)
    log = outcome.folder.read_log()
    assert log[-1]["train"]["loss"] < 0.9 * log[0]["train"]["loss"]
    tensors, about = checkpoints.read(outcome.folder.last)
    adapter = {k for k in tensors if k.startswith("adapter.")}
    assert adapter
    assert all("lora_A" in k or "lora_B" in k for k in adapter)
    assert any(bool(tensors[k].abs().max() > 0) for k in adapter if "lora_B" in k), (
        "B has moved away from zero"
    )
    assert about["adapter"]["kind"] == "lora"


def test_a_run_whose_features_changed_is_refused_with_the_field(config: RunConfig, tmp_path: Path) -> None:
    run(change(config, {"training": {"epochs": 1}}), tmp_path / "run", CPU, report=lambda text: None)
    folder = RunFolder.open(tmp_path / "run")
    text = folder.config_file.read_text().replace("window = 2", "window = 1")
    folder.config_file.write_text(text)
    with pytest.raises(FingerprintError, match=r"lag\.parameters\.window: 2 != 1"):
        evaluate_run(tmp_path / "run", CPU, ["val"], report=lambda text: None)


@pytest.mark.parametrize("regime", ["frozen", "streamed"])
def test_a_run_starts_where_another_ended(regime: str, clips: Path, tmp_path: Path) -> None:
    """Head first, then the backbone: before its first step the second run gives the first one's
    predictions."""
    values = {
        "data": {"path": str(clips)},
        "limit": 6,
        "features": {"backbone": "embedded", "cache": str(tmp_path / "cache"), "window": 2},
        "head": {"poolings": ("lag",), "channels": 8, "dilations": (1, 2)},
        "augment": {"crop": 0.0, "shift": 0.0, "noise": 0.0, "gain": 0.0},
        "training": {"epochs": 2, "head_lr": 1e-3},
    }
    first = run(change(RunConfig(), values), tmp_path / "first", CPU, report=lambda text: None)
    said: list[str] = []
    still = {
        "regime": regime,
        "training": {
            "epochs": 1,
            "head_lr": 1e-12,
            "adapter_lr": 1e-12,
            "mix_lr": 0.0,
            "start": str(tmp_path / "first"),
        },
    }
    second = run(change(change(RunConfig(), values), still), tmp_path / "second", CPU, report=said.append)
    assert any("starting from epoch" in line for line in said)
    one, other = (read_predictions(outcome.folder.predictions("test")) for outcome in (first, second))
    assert np.allclose(one.scores, other.scores, atol=2e-3)
    for wrong, says in (
        ({"head": {"channels": 4}}, "not of the shape"),
        ({"features": {"window": 1}}, "where this one is to start"),
    ):
        with pytest.raises((RunError, FingerprintError), match=says):
            run(
                change(change(RunConfig(), values), {**still, **wrong}),
                tmp_path / says.replace(" ", "-"),
                CPU,
                report=lambda text: None,
            )
