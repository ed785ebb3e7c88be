"""The training loop: any task, any source, one process or several. A resumed run continues bit for bit.

Randomness is seeded anew for each epoch from (seed, epoch), so an interrupted run needs no generator states:
weights, optimiser moments and the epoch number are all there is to go on from. What is drawn for a track
depends on its position in the optimiser's step, not on the batches and processes that share the step.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.poolings.sequences import of_times, real_rows
from beatmeter.learning import checkpoints
from beatmeter.learning.gradients import joint_step, separable_step
from beatmeter.learning.history import History
from beatmeter.learning.lag_shift import draw_shifts, shifted
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import optimiser_for, schedule
from beatmeter.learning.restoring import HEADER
from beatmeter.learning.sources import Batch, in_order
from beatmeter.learning.standardiser import IDENTITY, Standardiser, moments_of, standardiser_of
from beatmeter.runtime.artifacts import named
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import FrameOutputs, State, Task, Truth, chosen_by
from beatmeter.tasks.heads import draw_from, layer_weights

Report = Callable[[str], None]


@dataclass
class Run:
    """A model to be trained: by which settings, into which folder, and what every checkpoint says of where it
    comes from."""

    model: Model
    config: RunConfig
    folder: RunFolder
    about: Mapping[str, Any]


def epoch_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fit_standardisation(
    model: Model, train: Sequence[Track], size: int, known: Standardiser = IDENTITY
) -> None:
    """Standardise the source by mean and standard deviation of every pooling over the train split, untouched
    by augmentation; the first channels as `known` has them. A source that is standardised already stays as
    it is."""
    if model.source.standardiser.means:
        return
    model.source.encoder.eval()
    moments = {name: m for name, m in moments_of(model.source.spec).items() if name in model.task.reads}
    with torch.inference_mode():
        for batch in model.source.batches(
            train, in_order(len(train), size)[model.ranks.index :: model.ranks.count]
        ):
            features = model.source.features(batch)
            for name, moment in moments.items():
                moment.add(real_rows(features, name))
    for moment in moments.values():
        moment.exchange(model.ranks.gather)
    model.source.standardise(standardiser_of(moments).led_by(known))


def fit(
    run: Run,
    train: Sequence[Track],
    val: Sequence[Track],
    resume: bool = False,
    report: Report = print,
    progress: Reporter = SILENT,
) -> dict[str, Any]:
    """Train until the epochs are over or patience is, keep the best and the last checkpoint, load the best;
    its log line is returned. `progress` hears of every epoch's tracks."""
    model, config, folder, t = run.model, run.config, run.folder, run.config.training
    size = model.source.step_size(t)
    optimiser = optimiser_for(model, config)
    examples = model.task.examples(train)
    targets = model.task.truth(examples, model.device)
    after = None
    if resume and os.path.lexists(folder.last):
        tensors, after = checkpoints.read(
            folder.last,
            {
                **HEADER,
                "best": {"epoch": int, "val": {"loss": float, chosen_by(model.task, t.select).name: float}},
            },
        )
        model.load(tensors, folder.last)
        with named(folder.last):
            checkpoints.load_optimiser(optimiser, tensors)
        report(f"continuing after epoch {after['epoch']}")
    elif config.head.standardise and not t.start:
        fit_standardisation(model, train, size)
    history = History(
        folder if model.ranks.main else None, run.about, t, chosen_by(model.task, t.select), after, report
    )
    began_at = history.epoch + 1
    try:
        while not history.over:
            epoch = history.epoch + 1
            began = time.monotonic()
            with progress.track(f"epoch {epoch}/{t.epochs}", len(examples)) as tick:
                loss, norm = train_epoch(model, optimiser, examples, targets, config, epoch, size, tick)
                line = {
                    "epoch": epoch,
                    "train": {"loss": loss, "gradient_norm": norm},
                    "val": validate(model, val, size),
                }
            line |= {
                "layer_weights": layer_weights(model.head),
                "learning_rates": {g["name"]: g["lr"] for g in optimiser.param_groups},
                "seconds": round(time.monotonic() - began, 3),
            }
            better = history.add(
                line, model.state, model.tensors, lambda: checkpoints.optimiser_tensors(optimiser)
            )
            report(describe_epoch(model.task, line, t.epochs, better, first=epoch == began_at))
    finally:
        history.close()
    if history.best is None:
        raise RunError("no epoch was trained", "Set training.epochs to at least 1.")
    if history.epoch < t.epochs:
        report(f"stopped: no better validation {history.choice.name} for {t.patience} epochs")
    model.ranks.gather(None)  # the best epoch is on disk
    model.load(checkpoints.read(folder.best)[0], folder.best)
    return history.best


def train_epoch(
    model: Model,
    optimiser: torch.optim.Optimizer,
    train: Sequence[Track],
    targets: Truth,
    config: RunConfig,
    epoch: int,
    size: int,
    progress: Callable[[int], Any] = lambda n: None,
) -> tuple[float, float]:
    """One pass over the train split: mean loss and mean gradient norm before clipping.

    A step of the optimiser takes `batch` x `accumulation` tracks; each process computes its share of them,
    `size` at a time.
    """
    t, ranks, source, task = config.training, model.ranks, model.source, model.task
    torch.manual_seed(epoch_seed(config.seed, epoch, 2, ranks.index))  # dropout inside the encoder
    generator = torch.Generator(model.device)
    model.head.train()
    source.encoder.train()
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    steps = optimiser_steps(task, train, config, epoch)
    shares = [in_order(len(own), size) for own in (step[ranks.share(len(step))] for step in steps)]
    parts = [
        step[ranks.share(len(step))][rows]
        for step, share in zip(steps, shares, strict=True)
        for rows in share
    ]
    seed = (order_seed(config), epoch)
    batches = source.batches(train, parts, seed=seed)
    shifts = draw_shifts(len(train), seed, config.augment.lag_shift)

    heard: list[
        Mapping[str, Tensor]
    ] = []  # the features of the part at hand: of sequences they hold the times

    def outputs(part: Part) -> Tensor:
        by = None if shifts is None else shifts[part.batch.index]
        features = shifted(source.features(part.batch), source.spec, by)
        heard[:] = [features]
        draw_from(model.head, generator.manual_seed(head_seed(config.seed, epoch, part.step)), part.rows)
        return cast(Tensor, model.head(features))

    def loss(found: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        return task.loss(found, *targets.of(at, heard[0]), model.state)

    def parts_of(step: int) -> Iterator[tuple[Part, Tensor]]:
        size = len(steps[step])
        first = ranks.share(size).start
        for rows in shares[step]:
            batch = next(batches)
            yield (
                Part(batch, step, (slice(first + int(rows[0]), first + int(rows[-1]) + 1), size)),
                torch.from_numpy(batch.index),
            )
            progress(len(batch.index) * ranks.count)

    total, count = (torch.zeros((), device=model.device) for _ in range(2))
    norms = []
    for number in range(len(steps)):
        done = (epoch - 1) * len(steps) + number
        for g in optimiser.param_groups:
            g["lr"] = g["base_lr"] * schedule(done / (t.epochs * len(steps)), t.warmup)
        optimiser.zero_grad(set_to_none=True)
        step = (separable_step if task.separable else joint_step)(
            parts_of(number), outputs, loss, parameters, ranks
        )
        total, count = total + step.total, count + step.count
        norms.append(float(nn.utils.clip_grad_norm_(parameters, t.clip)))
        if not math.isfinite(norms[-1]):
            raise RunError(
                f"the loss is not finite in epoch {epoch}",
                "Lower the learning rates, or use --set features.dtype=float32.",
            )
        optimiser.step()
    return float(total) / max(float(count), 1e-12), sum(norms) / len(norms)


@dataclass(frozen=True)
class Part:
    """A batch of an optimiser step: `rows` says which of how many tracks of the step it holds."""

    batch: Batch
    step: int
    rows: tuple[slice, int]


def head_seed(seed: int, epoch: int, step: int) -> int:
    """What dropout and noise of a head draw from in one step of the optimiser."""
    return epoch_seed(seed, epoch, 1, step)


def order_seed(config: RunConfig) -> int:
    """What the order of tracks, their crops and their shifts are drawn from: with a shared order seed 0,
    whatever the run's own."""
    return config.seed if config.training.order == "own" else 0


def read_by(run: Run) -> tuple[int, int]:
    """Heads for which this is equal read the same tracks, crops and shifts in every step."""
    return order_seed(run.config), run.config.augment.lag_shift


def optimiser_steps(task: Task, train: Sequence[Track], config: RunConfig, epoch: int) -> list[np.ndarray]:
    """Positions of the tracks of every optimiser step of an epoch."""
    rng = np.random.default_rng((order_seed(config), epoch))
    return task.sampler(train, rng, config.training.batch * config.training.accumulation)


def validate(model: Model, val: Sequence[Track], size: int) -> dict[str, Any]:
    """Loss and the task's figures on the validation split."""
    return judge(model.task, model.state, val, model.outputs(val, size))


def judge(
    task: Task, state: State, val: Sequence[Track], outputs: np.ndarray | FrameOutputs
) -> dict[str, Any]:
    """The same from outputs (track, name), or of frames."""
    truth, cpu = task.truth(val, torch.device("cpu")), torch.arange(len(val))
    if isinstance(outputs, FrameOutputs):
        pairs = [
            task.loss(
                torch.from_numpy(values)[None],
                *truth.of(cpu[i : i + 1], of_times(times, task.clock)),
                state,
            )
            for i, (values, times) in enumerate(zip(outputs.values, outputs.times, strict=True))
        ]
        total, count = (float(sum(float(x) for x in part)) for part in zip(*pairs, strict=True))
    else:
        total, count = map(float, task.loss(torch.from_numpy(outputs), *truth.of(cpu, {}), state))
    return {"loss": total / max(count, 1e-12), **task.figures(task.decode(outputs, val, "val"))}


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
    row = "  ".join(cell.rjust(width) for cell, width in zip(cells.values(), widths, strict=True)) + (
        "  best" if better else ""
    )
    if not first:
        return row
    return "\n".join(
        [
            task.legend,
            "  ".join(heading.rjust(width) for heading, width in zip(cells, widths, strict=True)),
            row,
        ]
    )
