"""The gradient of one optimiser step, however the step is split into batches and processes.

A task's loss is a sum and a count, and the step follows the gradient of (all sums) / (all counts). Where the
loss is not a sum over tracks, every output of the step is needed before any gradient: outputs are computed
without one, the loss is derived by them once, and each batch is computed again with its part (gradient
caching, Gao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from beatmeter.runtime.distributed import ALONE, Ranks

B = TypeVar("B")
Outputs = Callable[[B], Tensor]  # a batch to the outputs of its tracks
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # outputs, positions of their tracks -> sum, count


@dataclass(frozen=True)
class Step:
    """The loss of an optimiser step: sum and count over all of its batches and processes."""

    total: Tensor
    count: Tensor


def separable_step(
    batches: Iterable[tuple[Any, Tensor]],
    outputs: Outputs[Any],
    loss: Loss,
    parameters: Sequence[nn.Parameter],
    ranks: Ranks = ALONE,
) -> Step:
    """Leave the gradient of the step in `parameters`; one batch (and the positions of its tracks) is in
    memory at a time."""
    total, count = None, None
    for batch, at in batches:
        part, n = loss(outputs(batch), at)
        part.backward()  # type: ignore[no-untyped-call]
        total = part.detach() if total is None else total + part.detach()
        count = n.detach() if count is None else count + n.detach()
    return _finish(total, count, parameters, ranks)


def joint_step(
    batches: Iterable[tuple[Any, Tensor]],
    outputs: Outputs[Any],
    loss: Loss,
    parameters: Sequence[nn.Parameter],
    ranks: Ranks = ALONE,
) -> Step:
    """The same for a loss that compares the tracks of a step with one another."""
    held = list(batches)
    if len(held) == 1 and ranks.count == 1:
        return separable_step(held, outputs, loss, parameters, ranks)
    states, parts = [], []
    with torch.no_grad():
        for batch, _ in held:
            states.append(_random_state())
            parts.append(outputs(batch))
    everyone = ranks.gather([(part.cpu(), at.cpu()) for part, (_, at) in zip(parts, held, strict=True)])
    device = parameters[0].device
    pairs = [pair for process in everyone for pair in process]
    z = torch.cat([part for part, _ in pairs]).to(device).requires_grad_()
    total, count = loss(z, torch.cat([at for _, at in pairs]))
    total.backward()  # type: ignore[no-untyped-call]
    first = sum(len(part) for process in everyone[: ranks.index] for part, _ in process)
    gradient = cast(Tensor, z.grad)
    after = _random_state()
    for (batch, _), part, state in zip(held, parts, states, strict=True):
        _set_random_state(state)  # dropout draws what it drew for the outputs that the loss has seen
        outputs(batch).backward(gradient[first : first + len(part)])  # type: ignore[no-untyped-call]
        first += len(part)
    _set_random_state(after)
    share = 1 / ranks.count  # every process has seen the whole loss
    return _finish(total.detach() * share, count.detach() * share, parameters, ranks)


def _finish(
    total: Tensor | None, count: Tensor | None, parameters: Sequence[nn.Parameter], ranks: Ranks
) -> Step:
    """Add up over processes, and divide by the count."""
    device = parameters[0].device
    step = Step(
        *(
            torch.zeros((), device=device) if x is None else x.to(device, torch.float32).clone()
            for x in (total, count)
        )
    )
    if ranks.count > 1:
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        ranks.add([*(cast(Tensor, p.grad) for p in parameters), step.total, step.count])
    scale = 1 / step.count.clamp_min(1e-12)
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(scale)
    return step


def _random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_state(state: Sequence[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(list(state[1:]))
