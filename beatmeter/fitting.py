"""The training loop: any task, any source, one process or several. A resumed run continues bit for bit.

Randomness is seeded anew for each epoch from (seed, epoch), so an interrupted run needs no generator states: weights,
optimiser moments and the epoch number are all there is to go on from. What chance does to a track depends on its place
in the optimiser's step, not on the batches and processes that share the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter import checkpoints
from beatmeter.artifacts import named
from beatmeter.course import Course
from beatmeter.distributed import ALONE, Ranks
from beatmeter.errors import RunError
from beatmeter.features import Batch, Source, in_order
from beatmeter.heads import Head, Moments, Standardise
from beatmeter.restoring import HEADER, part, require_fit
from beatmeter.runs import RunFolder
from beatmeter.schema import Predictions, Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import Task

Report = Callable[[str], None]


@dataclass
class Model:
    """What is trained: the source's encoder and the task's head; and by which processes."""

    task: Task
    source: Source
    head: Head
    ranks: Ranks = ALONE

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def logits(self, tracks: Sequence[Track], size: int, progress: Callable[[int], object] = lambda n: None) -> np.ndarray:
        """Logits (track, class) without gradients, in evaluation mode; processes share the work."""
        found = torch.zeros((len(tracks), len(self.task.classes)), device=self.device)
        self.head.eval()
        self.source.encoder.eval()
        with torch.inference_mode():
            for batch in self.source.batches(tracks, in_order(len(tracks), size)[self.ranks.index :: self.ranks.count]):
                found[torch.from_numpy(batch.index)] = self.head(self.source.encoder(batch.inputs), standardised=batch.standardised).float()
                progress(len(batch.index))
        self.ranks.add([found])
        result: np.ndarray = found.cpu().numpy()
        if not np.isfinite(result).all():
            bad = tracks[int((~np.isfinite(result).all(axis=1)).argmax())]
            raise RunError(
                f"the model gives values that are not finite, first for track {bad.id} (on {self.device})", "Use --set features.dtype=float32."
            )
        return result

    def predict(self, tracks: Sequence[Track], split: str, size: int, meta: dict[str, Any] | None = None) -> Predictions:
        """Predictions of one split."""
        return self.task.predictions(tracks, self.logits(tracks, size), split, meta or {})

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changed."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        return head | {f"adapter.{name}": value for name, value in self.source.adapter_state().items()}

    def load(self, tensors: Mapping[str, Tensor], where: Path, partly: bool = False) -> None:
        """Put back what `tensors` gave, from the checkpoint `where`; `partly` leaves the adapter as it is where they hold none.
        Raises RunError, naming `where`, for tensors of another model."""
        head, adapter = part(tensors, "head."), part(tensors, "adapter.")
        require_fit(self.head, head, where)
        self.head.load_state_dict(head)
        if adapter or not partly:
            with named(where):
                self.source.load_adapter_state(adapter)


@dataclass
class Run:
    """A model to be trained: by which settings, into which folder, and what every checkpoint says of where it comes from."""

    model: Model
    config: RunConfig
    folder: RunFolder
    about: Mapping[str, Any]


def epoch_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fit_standardisation(model: Model, train: Sequence[Track], size: int) -> None:
    """Mean and deviation of every pooling over the train split, before the first step, untouched by augmentation. What the
    source is standardised by already is taken over."""
    modules = {name: cast(Standardise, module) for name, module in model.head.standardise.items()}
    if model.source.scales is not None:
        for name, (mean, scale) in model.source.scales.items():
            modules[name].mean.copy_(mean)
            modules[name].scale.copy_(scale)
        return
    model.source.encoder.eval()
    moments = {name: Moments(module) for name, module in modules.items()}
    with torch.inference_mode():
        for batch in model.source.batches(train, in_order(len(train), size)[model.ranks.index :: model.ranks.count]):
            features = model.source.encoder(batch.inputs)
            for name, moment in moments.items():
                moment.add(features[name])
    for moment in moments.values():
        moment.exchange(model.ranks.gather)
        moment.give()


def optimiser_for(model: Model, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with one group each for the head, the layer mix (own rate, no decay) and what the source trains."""
    t = config.training
    mix = model.head.mix_parameters()
    groups = [
        {"params": model.head.own_parameters(), "name": "head", "lr": t.head_lr, "weight_decay": t.weight_decay},
        {"params": mix, "name": "mix", "lr": t.mix_lr, "weight_decay": 0.0},
        *({"lr": t.adapter_lr, "weight_decay": t.weight_decay, **g} for g in model.source.parameter_groups()),
    ]
    groups = [g | {"base_lr": g["lr"]} for g in groups if g["params"]]
    return torch.optim.AdamW(groups, fused=model.device.type in ("cpu", "cuda"))


def fit(
    run: Run,
    train: Sequence[Track],
    val: Sequence[Track],
    resume: bool = False,
    report: Report = print,
    progress: Callable[[str, int], Any] | None = None,
) -> dict[str, Any]:
    """Train until the epochs are over or patience is, keep the best and the last checkpoint, load the best; its log line
    is returned. `progress(label, total)` gives a bar with `update` and `close`."""
    model, config, folder, t = run.model, run.config, run.folder, run.config.training
    size = model.source.step_size(t)
    optimiser = optimiser_for(model, config)
    targets = torch.from_numpy(model.task.targets(train)[0]).float().to(model.device)
    after = None
    if resume and folder.last.exists():
        tensors, after = checkpoints.read(folder.last, {**HEADER, "best": {"epoch": int, "val": {"loss": float, t.select: float}}})
        model.load(tensors, folder.last)
        with named(folder.last):
            checkpoints.load_optimiser(optimiser, tensors)
        report(f"continuing after epoch {after['epoch']}")
    elif config.head.standardise and not t.start:
        fit_standardisation(model, train, size)
    if config.head.standardise:
        model.source.standardise(model.head.scales())
    course = Course(folder if model.ranks.main else None, run.about, t, after)
    began_at = course.epoch + 1
    try:
        while not course.over:
            epoch = course.epoch + 1
            began = time.monotonic()
            bar = progress(f"epoch {epoch}/{t.epochs}", len(train)) if progress else None
            loss, norm = train_epoch(model, optimiser, train, targets, config, epoch, size, bar.update if bar else lambda n: None)
            line = {"epoch": epoch, "train": {"loss": loss, "gradient_norm": norm}, "val": validate(model, val, size)}
            if bar:
                bar.close()
            line |= {
                "layer_weights": model.head.layer_weights(),
                "learning_rates": {g["name"]: g["lr"] for g in optimiser.param_groups},
                "seconds": round(time.monotonic() - began, 3),
            }
            better = course.add(line, model.task.state(), model.tensors, lambda: checkpoints.optimiser_tensors(optimiser))
            report(describe_epoch(model.task, line, t.epochs, better, first=epoch == began_at))
    finally:
        course.close()
    if course.best is None:
        raise RunError("no epoch was trained", "Set training.epochs to at least 1.")
    if course.epoch < t.epochs:
        report(f"stopped: no better validation {t.select} for {t.patience} epochs")
    model.ranks.gather(None)  # the best epoch is on disk
    model.load(checkpoints.read(folder.best)[0], folder.best)
    return course.best


def train_epoch(
    model: Model,
    optimiser: torch.optim.Optimizer,
    train: Sequence[Track],
    targets: Tensor,
    config: RunConfig,
    epoch: int,
    size: int,
    progress: Callable[[int], Any] = lambda n: None,
) -> tuple[float, float]:
    """One pass over the train split: mean loss and mean gradient norm before clipping.

    A step of the optimiser takes `batch` x `accumulation` tracks; each process computes its share of them, `size` at a time.
    """
    t, ranks = config.training, model.ranks
    torch.manual_seed(epoch_seed(config.seed, epoch, 2, ranks.index))  # dropout inside the encoder
    generator = torch.Generator(model.device).manual_seed(epoch_seed(config.seed, epoch, 1))
    model.head.train()
    model.source.encoder.train()
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    steps = optimiser_steps(len(train), config, epoch)
    shares = [in_order(len(own), size) for own in (step[ranks.share(len(step))] for step in steps)]
    parts = [step[ranks.share(len(step))][rows] for step, share in zip(steps, shares, strict=True) for rows in share]
    batches = model.source.batches(train, parts, seed=(config.seed, epoch))
    total, norms = torch.zeros((), device=model.device), []
    for number, (step, share) in enumerate(zip(steps, shares, strict=True)):
        done = (epoch - 1) * len(steps) + number
        for g in optimiser.param_groups:
            g["lr"] = g["base_lr"] * schedule(done / (t.epochs * len(steps)), t.warmup)
        optimiser.zero_grad(set_to_none=True)
        chance = model.head.draw(len(step), generator, config.augment.lag_shift)
        first = ranks.share(len(step)).start
        for rows in share:
            batch = next(batches)
            losses = _losses(model, batch, targets, chance.rows(slice(first + int(rows[0]), first + int(rows[-1]) + 1)))
            (losses.sum() / len(step)).backward()  # type: ignore[no-untyped-call]
            total += losses.detach().sum()
            progress(len(rows) * ranks.count)
        if ranks.count > 1:
            for p in parameters:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            ranks.add([cast(Tensor, p.grad) for p in parameters])
        norms.append(float(nn.utils.clip_grad_norm_(parameters, t.clip)))
        if not math.isfinite(norms[-1]):
            raise RunError(f"the loss is not finite in epoch {epoch}", "Lower the learning rates, or use --set features.dtype=float32.")
        optimiser.step()
    ranks.add([total])
    return float(total) / len(train), sum(norms) / len(norms)


def _losses(model: Model, batch: Batch, targets: Tensor, chance: Any) -> Tensor:
    logits = model.head(model.source.encoder(batch.inputs), chance, batch.standardised)
    return model.task.loss(logits, targets[torch.from_numpy(batch.index).to(targets.device)])


def optimiser_steps(n: int, config: RunConfig, epoch: int) -> list[np.ndarray]:
    """Positions of the tracks of every optimiser step of an epoch: all tracks once, in an order of their own."""
    order = np.random.default_rng((config.seed, epoch)).permutation(n)
    return [order[part] for part in in_order(n, config.training.batch * config.training.accumulation)]


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak learning rate after this share of all steps: a linear rise, then half a cosine to zero."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def validate(model: Model, val: Sequence[Track], size: int) -> dict[str, Any]:
    """Loss and the task's figures on the validation split."""
    return judge(model.task, val, model.logits(val, size))


def judge(task: Task, val: Sequence[Track], logits: np.ndarray) -> dict[str, Any]:
    """The same from logits (track, class)."""
    loss = task.loss(torch.from_numpy(logits), torch.from_numpy(task.targets(val)[0]).float())
    return {"loss": float(loss.mean()), **task.figures(task.predictions(val, logits, "val", {}))}


def describe_epoch(task: Task, line: dict[str, Any], epochs: int, better: bool, first: bool) -> str:
    """One terminal line per epoch, in at most 80 columns; the `first` comes under what the columns mean."""
    cells = {
        "epoch": f"{line['epoch']}/{epochs}",
        "loss": f"{line['train']['loss']:.3f}",
        "val loss": f"{line['val']['loss']:.3f}",
        **task.epoch_cells(line["val"]),
        "s": f"{line['seconds']:.1f}",
    }
    least = {"epoch": 7, "s": 6}
    widths = [max(len(heading), len(cell), least.get(heading, 0)) for heading, cell in cells.items()]
    row = "  ".join(cell.rjust(width) for cell, width in zip(cells.values(), widths, strict=True)) + ("  best" if better else "")
    if not first:
        return row
    return "\n".join([task.legend, "  ".join(heading.rjust(width) for heading, width in zip(cells, widths, strict=True)), row])
