"""Pre-training: targets lie where the music does, a stopped attempt goes on bit for bit, and what comes out
is a backbone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from beatmeter.cli.pretrain import pretrain as command
from beatmeter.datasets.synth import render, render_slice
from beatmeter.datasets.synth.clip import METERS
from beatmeter.errors import BeatmeterError, ConfigError, RunError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.checkpoint import write_folder
from beatmeter.features.backbones.embedded import fresh
from beatmeter.learning.pretraining import loop
from beatmeter.learning.pretraining.loop import pretrain
from beatmeter.learning.pretraining.objective import Objective
from beatmeter.learning.pretraining.stream import StreamSpec, batches, make_batch
from beatmeter.learning.pretraining.targets import (
    BAR_GROUPINGS,
    BAR_PERIODS,
    COMPANIES,
    UNKNOWN,
    bar_grouping_of,
    company_of,
    frame_targets,
)
from beatmeter.runtime.distributed import Ranks
from beatmeter.settings import PretrainConfig

CPU = torch.device("cpu")
SPEC = StreamSpec(clips=2, chunks=1, length=120_080, hop=120_000, sample_rate=24_000, seed=0)


def settings(**values: object) -> PretrainConfig:
    return PretrainConfig(
        **{
            "steps": 4,
            "clips": 2,
            "chunks": 1,
            "warmup": 2,
            "save_every": 2,
            "precision": "float32",
            **values,
        }
    )  # type: ignore[arg-type]


def quiet(text: str) -> None:
    return None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_targets_are_one_at_beats_and_turn_once_a_bar(seed: int) -> None:
    clip = render(seed, meter=METERS[seed], seconds=20.0)
    times = np.arange(1500) / 75
    targets = frame_targets(clip, times)
    peaks = times[targets.beat == 1]
    assert np.abs(peaks[:, None] - clip.beats[None]).min(axis=1).max() <= 0.5 / 75 + 1e-9
    assert len(peaks) == sum(0 <= b <= times[-1] + 0.5 / 75 for b in clip.beats)
    at_downbeats = np.searchsorted(times, clip.downbeats[1:-2] + 1e-6)
    assert (targets.phase[at_downbeats, 0] > 0.9).all(), "cosine 1 where a bar begins"
    halves = (clip.beats[1:-1] + clip.beats[2:]) / 2
    between = targets.beat_phase[np.searchsorted(times, halves[halves < times[-1]])]
    assert (between[:, 0] < -0.9).all(), "cosine -1 half-way between two beats"
    assert not targets.second.any()
    assert not targets.second_inside.any()
    known = targets.bar_period != UNKNOWN
    assert (known == (targets.inside > 0)).all()
    bar = float(np.median(np.diff(clip.downbeats)))
    step = np.log(BAR_PERIODS[1] / BAR_PERIODS[0])
    assert abs(np.log(np.median(BAR_PERIODS[targets.bar_period[known]]) / bar)) <= step


def test_the_second_meter_has_bars_of_its_own() -> None:
    clip = render_slice(5, "pairs", meter=3, seconds=20.0)
    times = np.arange(1500) / 75
    targets = frame_targets(clip, times)
    assert len(clip.second_downbeats) > 2
    peaks = times[targets.second == 1]
    assert np.abs(peaks[:, None] - clip.second_downbeats[None]).min(axis=1).max() <= 0.5 / 75 + 1e-9
    at = np.searchsorted(times, clip.second_downbeats[:-1] + 1e-6)
    assert (targets.second_phase[at[at < len(times)], 0] > 0.9).all()
    assert not np.array_equal(targets.second_phase, targets.phase)


def test_chords_change_on_pulses_mostly_at_downbeats_and_drums_alone_have_none() -> None:
    at_downbeats = changes = 0
    for seed in range(12):
        clip = render(seed, meter=METERS[seed % 6], seconds=20.0)
        if len(clip.chords):
            distance = np.abs(clip.chords[:, None] - clip.downbeats[None]).min(axis=1)
            at_downbeats, changes = at_downbeats + int((distance < 1e-6).sum()), changes + len(distance)
    assert changes > 30
    assert at_downbeats > changes / 2
    alone = next(clip for seed in range(400) if (clip := render(seed, seconds=2.0)).style == "kit")
    assert not len(alone.chords)


def test_a_clip_is_in_one_company_and_one_grouping() -> None:
    one = render(3, meter=7, seconds=3.0, kind="single")
    two = render_slice(5, "pairs", meter=3, seconds=6.0)
    assert COMPANIES[company_of(one)] == (7,)
    assert len(two.meters) == 2
    assert COMPANIES[company_of(two)] == tuple(sorted(two.meters))
    assert len(set(COMPANIES)) == 6 + 15
    assert BAR_GROUPINGS[bar_grouping_of(replace(one, grouping=(3, 2, 2)))] == (7, "3+2+2")
    assert BAR_GROUPINGS[bar_grouping_of(replace(one, grouping=(4, 3)))] == (7, "2+2+3")
    assert bar_grouping_of(replace(one, grouping=(7,))) == UNKNOWN


def test_hard_music_is_a_share_of_the_stream_and_long_windows_take_turns() -> None:
    spec = replace(SPEC, clips=3, hard=1.0, long_from=1)
    assert [spec.shape(step) for step in range(4)] == [(3, 1), (1, 3), (3, 1), (1, 3)]
    ordinary, hard = make_batch(replace(spec, hard=0.0), 0), make_batch(spec, 0)
    assert hard.waves.shape == ordinary.waves.shape == (3, 1, 120_080)
    assert not np.array_equal(hard.waves, ordinary.waves)
    long = make_batch(spec, 1)
    assert long.waves.shape == (1, 3, 120_080)
    assert long.frames["chord"].shape == (1, 3 * 375)
    assert long.companies.shape == long.groupings.shape == (1,)


@pytest.mark.parametrize("hard", [0.0, 0.5])
def test_the_stream_is_the_same_from_any_step_and_by_any_number_of_workers(hard: float) -> None:
    spec = replace(SPEC, hard=hard)
    whole = [make_batch(spec, i) for i in range(3)]
    for first, workers in ((1, 1), (1, 2)):
        for a, b in zip(whole[first:], batches(spec, first, 3, workers), strict=True):
            assert np.array_equal(a.waves, b.waves)
            assert np.array_equal(a.meters, b.meters)
            assert all(np.array_equal(a.frames[name], b.frames[name]) for name in a.frames)


@pytest.mark.parametrize(
    ("values", "losses"),
    [
        ({"frame_weight": 0.0, "lag_weight": 0.0}, {"spectrum"}),
        ({"mask_weight": 0.0, "frame_weight": 0.0}, {"meter"}),
        ({"mask_weight": 0.0, "lag_weight": 0.0}, {"beat", "downbeat", "phase", "beat_period", "bar_period"}),
        ({"mask_weight": 0.0, "lag_weight": 0.0, "frame_weight": 0.0, "chord_weight": 1.0}, {"chord"}),
        (
            {"mask_weight": 0.0, "lag_weight": 0.0, "frame_weight": 0.0}
            | {"beat_phase_weight": 1.0, "second_weight": 1.0},
            {"beat_phase", "second", "second_phase"},
        ),
        (
            {"mask_weight": 0.0, "lag_weight": 0.0, "frame_weight": 0.0}
            | {"company_weight": 1.0, "grouping_weight": 1.0},
            {"company", "grouping"},
        ),
    ],
)
def test_a_weight_of_zero_leaves_its_loss_out_and_the_rest_reaches_the_first_layer(
    values: dict[str, float], losses: set[str]
) -> None:
    config = settings(mask_share=0.9, mask_chunks=1.0, **values)
    model = Objective(fresh(0), config, len(METERS))
    batch = make_batch(SPEC, 0)
    frames = {name: torch.from_numpy(v) for name, v in batch.frames.items()}
    found, of = model(
        torch.from_numpy(batch.waves),
        {name: torch.from_numpy(getattr(batch, name)) for name in ("meters", "companies", "groupings")},
        frames,
        torch.Generator().manual_seed(0),
    )
    assert set(found) == set(of) == losses
    model.total(found).backward()
    gradient = model.backbone.encoder.layers[0].attention.q_proj.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0


def test_the_parts_of_a_step_add_up_to_the_step() -> None:
    """Each loss by as many frames or clips as it is a mean of, also where one part knows no grouping and has
    no masked frame; what is random is drawn for all clips."""
    config = settings(
        mask_share=0.2,
        mask_chunks=0.5,
        second_weight=1.0,
        beat_phase_weight=1.0,
        company_weight=1.0,
        grouping_weight=1.0,
    )
    model = Objective(fresh(0), config, len(METERS)).train()
    batch = make_batch(replace(SPEC, clips=3), 0)
    known = {n: torch.from_numpy(getattr(batch, n).copy()) for n in ("meters", "companies", "groupings")}
    known["groupings"][0] = UNKNOWN
    frames = {name: torch.from_numpy(values) for name, values in batch.frames.items()}
    waves = torch.from_numpy(batch.waves)
    seed = next(
        seed
        for seed in range(99)
        if [bool(m.any()) for m in model._mask((3, 375), torch.Generator().manual_seed(seed))]
        == [False, True, True]
    )

    @torch.no_grad()
    def losses(at: slice, rows: tuple[slice, int] | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(seed)
        part = {name: value[at] for name, value in known.items()}
        here = {name: value[at] for name, value in frames.items()}
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = model(waves[at], part, here, generator, rows)
        return found

    whole, of = losses(slice(0, 3), None)
    parts = [losses(at, (at, 3)) for at in (slice(0, 1), slice(1, 3))]
    assert not float(parts[0][1]["grouping"])
    assert not float(parts[0][1]["spectrum"])
    for name, value in whole.items():
        assert float(sum(n[name] for _, n in parts)) == pytest.approx(float(of[name]))
        total = sum(loss[name] * n[name] for loss, n in parts)
        assert float(total / of[name].clamp_min(1)) == pytest.approx(float(value), rel=1e-4), name


class Apart(Ranks):
    """One of two processes that adds nothing up."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        return None


def test_processes_share_the_clips_of_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_CLIPS", 6)
    model = Objective(fresh(0), settings(), len(METERS))
    spec = replace(SPEC, clips=2, hard=0.5)
    one = loop.held_out_accuracy(model, spec, CPU)
    parts = [loop.held_out_accuracy(model, replace(spec, ranks=Apart(index, 2)), CPU) for index in range(2)]
    assert max(one.values()) > 0
    for name, share in one.items():
        assert sum(part[name] for part in parts) == pytest.approx(share)


class Otherwise(Ranks):
    """One of two processes, the other of which says something else."""

    def gather(self, value: object) -> list[object]:
        return [value, "other"]


def test_processes_that_would_not_learn_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="begin with different settings, steps or weights"):
        pretrain(settings(), tmp_path, CPU, report=quiet, ranks=Otherwise(0, 2))
    assert not (tmp_path / "last.safetensors").exists()


def test_rendering_needs_no_torch() -> None:
    """Processes that make music ahead are many, and torch is the largest thing that they could load."""
    text = "import sys, beatmeter.learning.pretraining.stream; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "average": 0.5,
            "hard": 0.5,
            "long_after": 0.5,
            "clips": 3,
            "grouping_weight": 1.0,
            "beat_phase_weight": 0.5,
        },
    ],
)
def test_a_stopped_attempt_goes_on_bit_for_bit_and_gives_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, float]
) -> None:
    monkeypatch.setattr("beatmeter.learning.pretraining.loop.CHECK_CLIPS", 4)
    whole = pretrain(settings(**more), tmp_path / "whole", CPU, report=quiet)

    class StoppedError(Exception):
        pass

    def stop(text: str) -> None:
        raise StoppedError  # the first report follows the checkpoint of step 2

    with pytest.raises(StoppedError):
        pretrain(settings(**more), tmp_path / "parts", CPU, report=stop)
    assert json.loads((tmp_path / "parts" / "log.jsonl").read_text().splitlines()[-1])["step"] == 2
    with pytest.raises(RunError, match="holds a pre-training already"):
        pretrain(settings(), tmp_path / "parts", CPU)
    parts = pretrain(PretrainConfig(), tmp_path / "parts", CPU, resume=True, report=quiet)
    one, other = (folder / "backbone" / "model.safetensors" for folder in (whole, parts))
    assert one.read_bytes() == other.read_bytes()
    log = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    assert all(0 <= line["held_out_accuracy"] <= 1 for line in log)
    assert all(("held_out_hard" in line) == bool(more) for line in log)
    backbone = load_backbone(str(parts / "backbone"))
    assert backbone.identity.trained
    beats = backbone.beat_activations()
    assert (beats is not None) == ("beat_phase_weight" in more), "it brings along what heard the beats"
    if beats is not None:
        learned = {
            k.removeprefix("mean.module."): v for k, v in load_file(parts / "last.safetensors").items()
        }
        states = torch.randn(9, backbone.dim)
        weight, bias = (learned[f"frame_norm.{name}"] for name in ("weight", "bias"))
        normed = torch.nn.functional.layer_norm(states, (backbone.dim,), weight, bias)
        likely = (normed @ learned["frame.weight"][:2].T + learned["frame.bias"][:2]).sigmoid()
        place = normed @ learned["beat_phase.weight"].T + learned["beat_phase.bias"]
        assert torch.allclose(beats(states)[:, :2], likely / likely.std(correction=0), atol=1e-4)
        assert torch.allclose(beats(states)[:, 2:], torch.nn.functional.normalize(place) / 2, atol=1e-4)
    started = fresh(0).state_dict()["encoder.layers.0.attention.q_proj.weight"]
    assert not torch.allclose(
        backbone.state_dict()["encoder.layers.0.attention.q_proj.weight"], started, atol=1e-4
    )


def test_pretraining_goes_on_from_a_backbone_and_hands_on_the_running_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beatmeter.learning.pretraining.loop.CHECK_CLIPS", 1)  # fewer than a step has
    write_folder(fresh(5), tmp_path / "before", torch.float32)
    start = str(tmp_path / "before")
    name = "encoder.layers.0.attention.q_proj.weight"

    def trained(out: str, **values: object) -> torch.Tensor:
        # a step this small leaves the weights where they began
        where = pretrain(settings(start=start, lr=1e-9, **values), tmp_path / out, CPU, report=quiet)
        return load_backbone(str(where / "backbone")).state_dict()[name]

    before = load_backbone(start).state_dict()[name]
    assert torch.allclose(trained("after"), before, atol=1e-3)
    assert not torch.allclose(before, fresh(0).state_dict()[name], atol=1e-2)
    fast = settings(start=start, average=0.999)
    where = pretrain(replace(fast, lr=0.1), tmp_path / "mean", CPU, report=quiet)
    mean = load_backbone(str(where / "backbone")).state_dict()[name]
    where = pretrain(replace(fast, lr=0.1, average=0.0), tmp_path / "last", CPU, report=quiet)
    last = load_backbone(str(where / "backbone")).state_dict()[name]
    assert (mean - before).norm() < (last - before).norm(), "the mean lags behind"
    with pytest.raises(ConfigError, match="3 processes cannot split steps of 2 clips"):
        pretrain(fast, tmp_path / "other", CPU, report=quiet, ranks=Ranks(0, 3))
    with pytest.raises(ConfigError, match=r"of long windows \(a third of clips = 6\) of 2 clips"):
        pretrain(
            replace(fast, clips=6, long_after=0.5), tmp_path / "other", CPU, report=quiet, ranks=Ranks(0, 3)
        )
    with pytest.raises(ConfigError, match="not built as the embedded backbone"):
        pretrain(settings(start="spectral"), tmp_path / "other", CPU, report=quiet)
    assert not (tmp_path / "other" / "config.toml").exists(), "what was refused leaves no settings behind"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--out DIR with settings, or --resume DIR"),
        (["--out", "x", "--set", "step=3"], "steps"),
        (
            ["--out", "x", "--set", "lag_weight=0", "--set", "mask_weight=0", "--set", "frame_weight=0"],
            "at least one loss",
        ),
        (["--out", "x", "--set", "steps=0"], "steps"),
        (["--out", "x", "--set", "average=1"], "average"),
        (["--out", "x", "--set", "longest_lag=99"], "longest_lag"),
    ],
)
def test_wrong_orders_are_refused_in_words(arguments: list[str], says: str) -> None:
    error = CliRunner().invoke(command, arguments).exception
    assert isinstance(error, BeatmeterError | ConfigError)
    assert says in str(error)
