"""Data-parallel training: processes that split every optimiser step, started by `torchrun` or `accelerate
launch`.

A step takes the same tracks, in the same order and with the same random draws, however many processes
there are: each computes its share and gradients are added up. So several processes learn what one learns, and
nothing has to be set for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from beatmeter.errors import RunError

if TYPE_CHECKING:  # what only renders music for a process knows its share, and needs no torch
    import torch
    from torch import Tensor

PATIENCE = timedelta(
    days=30
)  # the others wait while the first extracts; a launcher ends them when one of them dies


class Ranks:
    """This process among `count`; every method but `share` is to be called by all of them."""

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index, self.count = index, count

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return self.index == 0

    def share(self, n: int) -> slice:
        """Which of `n` neighbours this process takes; none when there are more processes."""
        return slice(n * self.index // self.count, n * (self.index + 1) // self.count)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their sums over processes."""
        if self.count > 1 and tensors:
            import torch
            import torch.distributed as dist

            flat = torch.cat([t.reshape(-1) for t in tensors])
            with _together():
                dist.all_reduce(flat)
            for t, total in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
                t.copy_(total.view_as(t))

    def gather(self, value: Any) -> list[Any]:
        """What every process gives, in their order."""
        found = [value]
        if self.count > 1:
            import torch.distributed as dist

            found = [None] * self.count
            with _together():
                dist.all_gather_object(found, value)
        return found

    @contextmanager
    def first(self) -> Iterator[None]:
        """The main process does this before the others, which then find it done."""
        if self.count > 1 and not self.main:
            _meet()
        yield
        if self.count > 1 and self.main:
            _meet()


ALONE = Ranks()


def _meet() -> None:
    import torch.distributed as dist

    with _together():
        dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """What needs all processes. Raises RunError where another one has ended."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            "another process of this training has ended",
            "What ended it stands in its own message. Start all of them again.",
        ) from error


def started() -> bool:
    """Whether a launcher (torchrun, `accelerate launch`, mpirun) made this process one of several."""
    return any(
        int(os.environ.get(name, "1")) > 1
        for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    )


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """Meet the other processes of a launcher, if there are any: this process's place among them and its
    device."""
    if not started():
        return ALONE, device
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    return Ranks(state.process_index, state.num_processes), state.device


def leave() -> None:
    """Part from the others, when all are here: a process that went earlier would pull the connections from
    under the rest."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
