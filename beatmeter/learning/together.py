"""Many heads at once, each its own run: epoch after epoch of all of them, until the epochs or the patience of
the last one are over.

How they go through an epoch is up to a `Together`: small heads, and all on a GPU, are stacked into one
(`stacked`); large ones on a CPU go in step (`in_step`), where they share what they read and compute alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from beatmeter.errors import RunError
from beatmeter.learning import checkpoints
from beatmeter.learning.history import History
from beatmeter.learning.loop import Run, fit_standardisation, judge
from beatmeter.learning.sources import Source
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import Track
from beatmeter.tasks import TrackTruth, chosen_by
from beatmeter.tasks.heads import layer_weights

FREE = (  # settings in which heads of one stack may differ
    "seed",
    *(
        f"training.{name}"
        for name in (
            "epochs",
            "patience",
            "order",
            "head_lr",
            "mix_lr",
            "weight_decay",
            "warmup",
            "clip",
            "select",
        )
    ),
    *(f"task.{name}" for name in ("smoothing", "loss", "weighting", "weight_cap")),
    *(f"head.{name}" for name in ("dropout", "noise")),
    "augment.lag_shift",
)


class Together(Protocol):
    """Heads that go through epochs together, in the order of `members`."""

    members: list[Run]

    def __init__(self, members: Sequence[Run]) -> None: ...

    def keep(self, rows: Sequence[int]) -> None:
        """Only these heads from now on."""

    def epoch(
        self,
        source: Source,
        train: Sequence[Track],
        targets: TrackTruth,
        epoch: int,
        heed: Callable[[], object],
    ) -> tuple[Tensor, Tensor]:
        """One pass of every head over the train split: mean losses (head,) and mean gradient norms (head,),
        not finite where the loss was not. `heed()` is called in every step and may raise."""

    def validation(self, source: Source, val: Sequence[Track]) -> np.ndarray:
        """Outputs (head, track, name) in evaluation mode."""

    def rates(self, row: int) -> dict[str, float]:
        """The learning rates of a head's last step, by group."""

    def give(self, row: int) -> Mapping[str, Tensor]:
        """Put a head's parameters into its own model; its moments as `checkpoints.optimiser_tensors` has
        them."""


def fit_together(
    members: Sequence[Run],
    train: Sequence[Track],
    val: Sequence[Track],
    kind: type[Together],
    report: Callable[[str], None] = print,
    tick: Tick = untold,
    heed: Callable[[], object] = lambda: None,
) -> dict[Path, RunError]:
    """Train all heads, which must share one source and differ only in the settings of `FREE`; every run
    folder ends as if its head had been trained alone, and every model holds its best epoch. `tick(n)`: n more
    epochs of heads are over; `heed()` is called in every step and may raise.

    Given back are the heads whose loss is not finite any more, by run folder: their last sound epoch is on
    disk.
    """
    source = members[0].model.source
    for member in members:
        if member.config.head.standardise:
            fit_standardisation(member.model, train, source.step_size(member.config.training))
    group = kind(members)
    targets = cast(TrackTruth, members[0].model.task.truth(train, members[0].model.device))
    histories = [
        History(
            m.folder,
            m.about,
            m.config.training,
            chosen_by(m.model.task, m.config.training.select),
            None,
            report,
            len(members),
        )
        for m in group.members
    ]
    every = list(zip(group.members, histories, strict=True))
    failed: dict[Path, RunError] = {}
    epoch = 0
    try:
        while histories:
            epoch, began = epoch + 1, time.monotonic()
            losses, norms = group.epoch(source, train, targets, epoch, heed)
            outputs = group.validation(source, val)
            seconds = round((time.monotonic() - began) / len(histories), 3)
            sound = torch.isfinite(norms).cpu().numpy() & np.isfinite(outputs).all(axis=(1, 2))
            for row, (member, history) in enumerate(zip(group.members, histories, strict=True)):
                if not sound[row]:
                    path = member.folder.path
                    failed[path] = RunError(
                        f"the loss of {path.name} is not finite in epoch {epoch}", "Lower the learning rates."
                    )
                    continue
                moments = group.give(row)
                model = member.model
                line = {
                    "epoch": epoch,
                    "train": {"loss": float(losses[row]), "gradient_norm": float(norms[row])},
                    "val": judge(model.task, model.state, val, outputs[row]),
                    "layer_weights": layer_weights(model.head),
                    "learning_rates": group.rates(row),
                    "seconds": seconds,
                }
                history.add(line, model.state, model.tensors, lambda moments=moments: moments)  # type: ignore[misc]
            going = [i for i, history in enumerate(histories) if sound[i] and not history.over]
            tick(
                len(histories)
                + sum(c.training.epochs - epoch for i, c in enumerate(histories) if i not in going)
            )
            if len(going) < len(histories):
                for i, history in enumerate(histories):
                    if i not in going:
                        history.close()
                histories = [histories[i] for i in going]
                if going:
                    group.keep(going)
    finally:
        for history in histories:
            history.close()
    for member, history in every:
        if member.folder.path in failed:
            continue
        member.model.load(checkpoints.read(member.folder.best)[0], member.folder.best)
        assert history.best is not None
        figures = member.model.task.epoch_line(history.best["val"])
        report(f"{member.folder.path.name}: {history.epoch} epochs, best {history.best['epoch']}: {figures}")
    return failed
