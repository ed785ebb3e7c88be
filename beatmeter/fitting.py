"""The training loop: any task, any source. Every epoch is logged and saved; a resumed run continues bit for bit.

Randomness is seeded anew for each epoch from (seed, epoch), so an interrupted run needs no generator states: weights,
optimiser moments and the epoch number are all there is to go on from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter import checkpoints
from beatmeter.errors import RunError
from beatmeter.features import Source, shift_lags
from beatmeter.heads import Head, Standardise
from beatmeter.runs import RunFolder
from beatmeter.schema import Predictions, Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import Task


@dataclass
class Model:
    """What is trained: the source's encoder and the task's head."""

    task: Task
    source: Source
    head: Head

    def logits(self, tracks: Sequence[Track], size: int, progress: Callable[[int], None] = lambda n: None) -> np.ndarray:
        """Logits (track, class) without gradients, in evaluation mode."""
        device = next(self.head.parameters()).device
        found = np.empty((len(tracks), len(self.task.classes)), dtype=np.float32)
        self.head.eval()
        self.source.encoder.eval()
        with torch.inference_mode():
            for batch in self.source.batches(tracks, size):
                found[batch.index] = self.head(self.source.encoder(batch.inputs)).float().cpu().numpy()
                progress(len(batch.index))
        if not np.isfinite(found).all():
            bad = tracks[int((~np.isfinite(found).all(axis=1)).argmax())]
            raise RunError(f"the model gives values that are not finite, first for track {bad.id} (on {device})", "Use --set features.dtype=float32.")
        return found

    def predict(self, tracks: Sequence[Track], split: str, size: int, meta: dict[str, Any] | None = None) -> Predictions:
        """Predictions of one split."""
        return self.task.predictions(tracks, self.logits(tracks, size), split, meta or {})

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changed."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        return head | {f"adapter.{name}": value for name, value in self.source.adapter_state().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.head.load_state_dict(head_tensors(tensors))
        self.source.load_adapter_state({k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")})


def head_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of a checkpoint."""
    return {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}


def epoch_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fit_standardisation(model: Model, train: Sequence[Track], size: int) -> None:
    """Mean and deviation of every pooling over the train split, before the first step, untouched by augmentation."""
    standardise = model.head.standardise
    model.source.encoder.eval()
    kept: dict[str, list[Tensor]] = {name: [] for name in standardise}
    with torch.inference_mode():
        for batch in model.source.batches(train, size):
            features = model.source.encoder(batch.inputs)
            for name, values in kept.items():
                values.append(features[name].to(torch.float16).cpu())
    for name, module in standardise.items():
        cast(Standardise, module).fit(kept[name])


def optimiser_for(model: Model, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with one group each for the head, the layer mix (own rate, no decay) and what the source trains."""
    t = config.training
    mix = model.head.mix_parameters()
    mixed = {id(p) for p in mix}
    head = [p for p in model.head.parameters() if id(p) not in mixed]
    groups = [
        {"params": head, "name": "head", "lr": t.head_lr, "weight_decay": t.weight_decay},
        {"params": mix, "name": "mix", "lr": t.mix_lr, "weight_decay": 0.0},
        *({"lr": t.adapter_lr, "weight_decay": t.weight_decay, **g} for g in model.source.parameter_groups()),
    ]
    groups = [g | {"base_lr": g["lr"]} for g in groups if g["params"]]
    return torch.optim.AdamW(groups)


def fit(
    model: Model,
    train: Sequence[Track],
    val: Sequence[Track],
    config: RunConfig,
    folder: RunFolder,
    about: dict[str, Any],
    resume: bool = False,
    report: Callable[[str], None] = print,
    progress: Callable[[str, int], Any] | None = None,
) -> dict[str, Any]:
    """Train until the epochs are over or patience is, keep the best and the last checkpoint, load the best; its log line
    is returned. `progress(label, total)` gives a bar with `update` and `close`."""
    t = config.training
    size, accumulation = model.source.step_size(t)
    optimiser = optimiser_for(model, config)
    targets = torch.from_numpy(model.task.targets(train)[0]).float()
    best: dict[str, Any] | None = None
    first = 1
    if resume:
        tensors, last = checkpoints.read(folder.last)
        model.load(tensors)
        checkpoints.load_optimiser(optimiser, tensors)
        best, first = last["best"], int(last["epoch"]) + 1
        folder.truncate_log(first - 1)
        report(f"continuing after epoch {first - 1}")
    else:
        if config.head.standardise:
            fit_standardisation(model, train, size)
        folder.truncate_log(0)
    board = folder.tensorboard(first)
    for epoch in range(first, t.epochs + 1):
        if best is not None and epoch - 1 - best["epoch"] >= t.patience:
            report(f"stopped: no better validation {t.select} for {t.patience} epochs")
            break
        began = time.monotonic()
        bar = progress(f"epoch {epoch}/{t.epochs}", len(train)) if progress else None
        loss, norm = train_epoch(model, optimiser, train, targets, config, epoch, size, accumulation, bar.update if bar else lambda n: None)
        line = {"epoch": epoch, "train": {"loss": loss, "gradient_norm": norm}, "val": validate(model, val, size)}
        if bar:
            bar.close()
        line |= {
            "layer_weights": model.head.layer_weights(),
            "learning_rates": {g["name"]: g["lr"] for g in optimiser.param_groups},
            "seconds": round(time.monotonic() - began, 3),
        }
        better = best is None or rank(line, t.select) > rank(best, t.select)
        best = line if better else best
        state = {**about, "epoch": epoch, "best": best, "task": model.task.state(), "log": line}
        tensors = model.tensors()
        if better:
            checkpoints.write(folder.best, tensors, state)
        checkpoints.write(folder.last, tensors | checkpoints.optimiser_tensors(optimiser), state)
        folder.log(line)
        board.epoch(line)
        report(describe_epoch(model.task, line, t.epochs, better))
    board.close()
    if best is None:
        raise RunError("no epoch was trained", "Set training.epochs to at least 1.")
    model.load(checkpoints.read(folder.best)[0])
    return best


def rank(line: dict[str, Any], select: str) -> tuple[float, float]:
    """Sort key of an epoch: larger is better; equal scores go to the lower loss."""
    loss = -float(line["val"]["loss"])
    return (loss, loss) if select == "loss" else (float(line["val"][select]), loss)


def train_epoch(
    model: Model,
    optimiser: torch.optim.Optimizer,
    train: Sequence[Track],
    targets: Tensor,
    config: RunConfig,
    epoch: int,
    size: int,
    accumulation: int,
    progress: Callable[[int], Any],
) -> tuple[float, float]:
    """One pass over the train split: mean loss and mean gradient norm before clipping."""
    t = config.training
    torch.manual_seed(epoch_seed(config.seed, epoch))
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch, 1))
    device = next(model.head.parameters()).device
    model.head.train()
    model.source.encoder.train()
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    steps = math.ceil(len(train) / (size * accumulation))
    total, norms, seen = 0.0, [], 0
    for number, batch in enumerate(model.source.batches(train, size, seed=(config.seed, epoch))):
        if number % accumulation == 0:
            group = min(size * accumulation, len(train) - seen)  # tracks whose gradients are averaged together
            done = (epoch - 1) * steps + number // accumulation
            for g in optimiser.param_groups:
                g["lr"] = g["base_lr"] * schedule(done / (t.epochs * steps), t.warmup)
            optimiser.zero_grad(set_to_none=True)
        features = shift_lags(model.source.encoder(batch.inputs), model.source.spec, config.augment.lag_shift, generator)
        losses = model.task.loss(model.head(features), targets[torch.from_numpy(batch.index)].to(device))
        if not bool(torch.isfinite(losses).all()):
            raise RunError(f"the loss is not finite in epoch {epoch}", "Lower the learning rates, or use --set features.dtype=float32.")
        (losses.sum() / group).backward()  # type: ignore[no-untyped-call]
        total += float(losses.detach().sum())
        seen += len(batch.index)
        progress(len(batch.index))
        if number % accumulation == accumulation - 1 or seen == len(train):
            norms.append(float(nn.utils.clip_grad_norm_(parameters, t.clip)))
            optimiser.step()
    return total / len(train), sum(norms) / len(norms)


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak learning rate after this share of all steps: a linear rise, then half a cosine to zero."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def validate(model: Model, val: Sequence[Track], size: int) -> dict[str, Any]:
    """Loss and the task's figures on the validation split."""
    logits = model.logits(val, size)
    loss = model.task.loss(torch.from_numpy(logits), torch.from_numpy(model.task.targets(val)[0]).float())
    return {"loss": float(loss.mean()), **model.task.figures(model.task.predictions(val, logits, "val", {}))}


def describe_epoch(task: Task, line: dict[str, Any], epochs: int, better: bool) -> str:
    """One terminal line per epoch."""
    weights = " ".join(f"{name} L{1 + int(np.argmax(w))}:{max(w):.2f}" for name, w in line["layer_weights"].items() if len(w) > 1)
    return (
        f"epoch {line['epoch']:3d}/{epochs}  loss {line['train']['loss']:.3f}  val {line['val']['loss']:.3f}  {task.epoch_line(line['val'])}"
        f"{'  mix ' + weights if weights else ''}  {line['seconds']:.1f} s{'  best' if better else ''}"
    )
