"""The pre-training loop: resumable to the bit, logged line by line, one folder per attempt.

Several processes split the clips of every step and learn what one learns, up to rounding; the first writes
and reports."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from beatmeter.datasets.synth import SynthOptions
from beatmeter.datasets.synth.clip import METERS
from beatmeter.errors import ConfigError, RunError
from beatmeter.evaluation.runs import provenance
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.checkpoint import write_folder
from beatmeter.features.backbones.embedded import EMBEDDED_CONFIG, SAMPLE_RATE, fresh
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.learning import checkpoints
from beatmeter.learning.pretraining.objective import Objective
from beatmeter.learning.pretraining.stream import StreamBatch, StreamSpec, batches, make_batch
from beatmeter.learning.restoring import part, require_fit
from beatmeter.runtime import atomic, lock
from beatmeter.runtime.artifacts import named, read_toml, to_json_line
from beatmeter.runtime.config import build, differences, to_toml
from beatmeter.runtime.device import fast_dtype
from beatmeter.runtime.distributed import ALONE, Ranks
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.settings import PretrainConfig

LOG_EVERY = 20
CHECK_CLIPS = 96  # clips that no step sees, to watch the meter by
TOGETHER = 8  # of them at a time, at most


def pretrain(
    config: PretrainConfig,
    out: Path,
    device: torch.device,
    resume: bool = False,
    report: Callable[[str], None] = print,
    progress: Reporter = SILENT,
    ranks: Ranks = ALONE,
) -> Path:
    """Train from fresh weights (or go on) in the folder `out`; returns the folder with the backbone's
    weights. No other attempt can train there until the end: RunError says who does. Raises ConfigError for
    steps of fewer clips than there are processes."""
    if resume and not out.is_dir():
        raise RunError(f"there is no folder {out}", "Name the --out of a pre-training that was begun.")
    held = lock.held(out / ".lock", f"pre-training in {out}", report) if ranks.main else nullcontext()
    with held:
        return _pretrain(config, out, device, resume, report, progress, ranks)


def _pretrain(
    config: PretrainConfig,
    out: Path,
    device: torch.device,
    resume: bool,
    report: Callable[[str], None],
    progress: Reporter,
    ranks: Ranks,
) -> Path:
    last = out / "last.safetensors"
    if last.exists() and not resume:
        raise RunError(
            f"{out} holds a pre-training already",
            f"Continue it with `beatmeter pretrain --resume {out}`, or choose another --out.",
        )
    if resume:
        config = build(PretrainConfig, read_toml(out / "config.toml", RunError), str(out / "config.toml"))
    stream = _stream(config, ranks)
    backbone = fresh(config.seed) if resume else _begun(config)
    if not resume and ranks.main:
        atomic.write_text(out / "config.toml", to_toml(differences(config, PretrainConfig())))
    torch.manual_seed(config.seed)
    model = Objective(backbone, config, len(METERS)).to(device).train()
    mean = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average)) if config.average else None  # type: ignore[no-untyped-call]
    )
    optimiser = _optimiser(model, config)
    step, log = 0, []
    if resume:
        tensors, about = checkpoints.read(last, {"step": int, "log": [{"step": int}]})
        for each, prefix in ((model, "model."), (mean, "mean.")):
            if each is not None:
                state = {
                    name: value
                    for name, value in part(tensors, prefix).items()
                    if ".standardise." not in name
                }
                require_fit(each, state, last)
                each.load_state_dict(state)
        with named(last):
            checkpoints.load_optimiser(optimiser, tensors)
        step, log = int(about["step"]), about["log"]
        report(f"continuing after step {step}")
    _require_alike(ranks, step, config, model)
    dtype = fast_dtype(device) if config.precision == "auto" else config.precision
    began = time.monotonic()
    sums: dict[str, float] = {}
    seen = 0
    with progress.track("pre-training", config.steps) as tick:
        tick(step)
        for number, batch in enumerate(batches(stream, step, config.steps, config.workers), step):
            losses = _step(model, optimiser, config, number, batch, stream, device, dtype)
            if mean is not None:
                mean.update_parameters(model)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            done = number + 1
            tick(1)
            seen += 1
            saving = done % config.save_every == 0 or done == config.steps
            heard = (
                held_out_accuracy(_kept(model, mean), stream, device) if saving and config.lag_weight else {}
            )
            if not ranks.main:
                continue
            if saving or done % LOG_EVERY == 0:
                log.append(
                    {
                        "step": done,
                        **{k: round(v / seen, 4) for k, v in sums.items()},
                        "seconds": round(time.monotonic() - began, 1),
                    }
                )
                sums, seen = {}, 0
            if saving:
                log[-1] |= {name: round(value, 4) for name, value in heard.items()}
                _save(out, model, mean, optimiser, config, done, log)
                report(" ".join(f"{k} {v}" for k, v in log[-1].items()))
    if ranks.main:
        kept = _kept(model, mean)
        write_folder(kept.backbone, out / "backbone", torch.float16, kept.beat_activations())
    report(f"backbone: {out / 'backbone'}")
    return out


def _stream(config: PretrainConfig, ranks: Ranks) -> StreamSpec:
    """The music of an attempt. Raises ConfigError where a step has fewer clips than there are processes."""
    chunk = EMBEDDED_CONFIG
    stream = StreamSpec(
        config.clips,
        config.chunks,
        375 * chunk.hop + chunk.span - chunk.hop,
        375 * chunk.hop,
        SAMPLE_RATE,
        config.seed,
        hard=config.hard,
        long_from=round(config.long_after * config.steps),
        ranks=ranks,
    )
    clips = min(stream.shape(step)[0] for step in range(max(0, config.steps - 2), config.steps))
    if clips < ranks.count:
        long = f" of long windows (a third of clips = {config.clips})" if clips < config.clips else ""
        raise ConfigError(
            f"{ranks.count} processes cannot split steps{long} of {clips} clip{'s' * (clips > 1)}",
            f"Start at most {clips}, or begin an attempt of more clips.",
        )
    return stream


def _require_alike(ranks: Ranks, step: int, config: PretrainConfig, model: Objective) -> None:
    """Raises RunError where processes, each of which read its own files, would not learn the same."""
    if ranks.count == 1:
        return
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.detach().cpu().numpy().tobytes())
    if (
        len(set(ranks.gather((step, to_toml(differences(config, PretrainConfig())), weights.hexdigest()))))
        > 1
    ):
        raise RunError(
            "the processes begin with different settings, steps or weights",
            "Let all of them read the same folder and the same backbone.",
        )


def _begun(config: PretrainConfig) -> Hubert:
    """The backbone of step 0. Raises ConfigError where those to go on from are of another build."""
    model = fresh(config.seed)
    if config.start:
        other = load_backbone(config.start)
        if not isinstance(other, Hubert) or other.settings != model.settings:
            raise ConfigError(
                f"start = {config.start!r} is not built as the embedded backbone is",
                "Name 'embedded', or the folder `backbone` of a pre-training.",
            )
        model.load_state_dict(other.state_dict())
    return model


def _kept(model: Objective, mean: AveragedModel | None) -> Objective:
    """What is checked and handed on: the running mean of the weights where there is one."""
    return model if mean is None else cast(Objective, mean.module)


@torch.inference_mode()
def held_out_accuracy(model: Objective, stream: StreamSpec, device: torch.device) -> dict[str, float]:
    """Share of clips from another stream whose heaviest meter is heard, through lag pooling and the meter
    head: of ordinary ones, and of those that are hard to hear where the stream has them. Processes share
    the clips."""
    ranks = stream.ranks
    few = max(n for n in range(1, min(stream.clips, TOGETHER) + 1) if CHECK_CLIPS % n == 0)
    ordinary = replace(
        stream,
        clips=few,
        seed=stream.seed + 1_000_003,
        options=SynthOptions(polymeter=0, polyrhythm=0, hemiola=0),
        hard=0.0,
        long_from=None,
        ranks=ALONE,
    )
    checks = {"held_out_accuracy": ordinary}
    if stream.hard:
        checks["held_out_hard"] = replace(ordinary, hard=1.0)
    training = model.training
    model.eval()
    found = {}
    for name, spec in checks.items():
        right, rounds = torch.zeros((), device=device), range(CHECK_CLIPS // few)
        for step in rounds[ranks.share(len(rounds))]:
            batch = make_batch(spec, step)
            logits = model.meters(torch.from_numpy(batch.waves).to(device))
            right += int((logits.argmax(1).cpu().numpy() == batch.meters.argmax(1)).sum())
        ranks.add([right])
        found[name] = float(right) / CHECK_CLIPS
    model.train(training)
    return found


def _optimiser(model: nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """Decay for matrices and kernels only."""
    large = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    small = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": large, "weight_decay": config.weight_decay}, {"params": small, "weight_decay": 0.0}],
        lr=config.lr,
    )


def _step(
    model: Objective,
    optimiser: torch.optim.Optimizer,
    config: PretrainConfig,
    number: int,
    batch: StreamBatch,
    stream: StreamSpec,
    device: torch.device,
    dtype: str,
) -> dict[str, float]:
    """One step of the optimiser: the losses of all processes' clips, by name."""
    rate = (
        config.lr
        * min(1.0, (number + 1) / config.warmup)
        * 0.5
        * (1 + math.cos(math.pi * number / config.steps))
    )
    for group in optimiser.param_groups:
        group["lr"] = rate
    torch.manual_seed(
        (config.seed << 32) + number
    )  # dropout and masks follow from (seed, step): a resumed run is the same run
    generator = torch.Generator().manual_seed((config.seed << 32) + number)
    waves = torch.from_numpy(batch.waves).to(device)
    known = {
        name: torch.from_numpy(getattr(batch, name)).to(device)
        for name in ("meters", "companies", "groupings")
    }
    frames = {name: torch.from_numpy(values).to(device) for name, values in batch.frames.items()}
    ranks, clips = stream.ranks, stream.shape(number)[0]
    rows = (ranks.share(clips), clips) if ranks.count > 1 else None
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        losses, of = model(waves, known, frames, generator, rows)
    if ranks.count > 1:
        losses = _shares(losses, of, ranks)
    total = model.total(losses)
    told = torch.stack([*losses.values(), total]).detach()
    ranks.add([told])
    if not bool(told[-1].isfinite()):
        raise RunError(
            f"the loss is not finite at step {number + 1}", "Lower lr, or use --set precision=float32."
        )
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    ranks.add([p.grad for p in model.parameters() if p.grad is not None])
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimiser.step()
    return dict(zip([*losses, "total"], told.tolist(), strict=True))


def _shares(losses: dict[str, Tensor], of: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """What this process's means add to the means over all clips of the step; `of`: how many frames or clips
    each is a mean of."""
    own = torch.stack([of[name] for name in losses])
    every = own.clone()
    ranks.add([every])
    part = own / every.clamp_min(1)
    return {name: value * share for (name, value), share in zip(losses.items(), part, strict=True)}


def _save(
    out: Path,
    model: Objective,
    mean: AveragedModel | None,
    optimiser: torch.optim.Optimizer,
    config: PretrainConfig,
    step: int,
    log: list[dict[str, Any]],
) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if mean is not None:
        tensors |= {f"mean.{name}": value for name, value in mean.state_dict().items()}
    about = {"step": step, "steps": config.steps, "log": log, **provenance()}
    checkpoints.write(out / "last.safetensors", tensors | checkpoints.optimiser_tensors(optimiser), about)
    atomic.write_text(out / "log.jsonl", "".join(to_json_line(line) + "\n" for line in log))
