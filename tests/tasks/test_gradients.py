"""The gradient of an optimiser step is the same however the step is split, for losses over tracks and losses
over pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from beatmeter.learning.gradients import joint_step, separable_step

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3])
SPLITS = [(12,), (6, 6), (5, 4, 3), (1,) * 12]


def per_track(outputs: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of the tracks with an odd label; the others count for nothing."""
    odd = (Y[at] % 2).float()
    return ((outputs.sum(1) - Y[at]).square() * odd).sum(), odd.sum()


def contrastive(outputs: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """SupCon (Khosla et al. 2020) over all pairs of the step."""
    z = nn.functional.normalize(outputs, dim=1)
    same = (Y[at][:, None] == Y[at][None]) & ~torch.eye(len(at), dtype=torch.bool)
    logits = (z @ z.T / 0.1).masked_fill(torch.eye(len(at), dtype=torch.bool), -torch.inf)
    log_p = logits.log_softmax(1).masked_fill(~same, 0)
    return -(log_p.sum(1) / same.sum(1).clamp_min(1)).sum(), same.any(1).sum()


def gradient(split: tuple[int, ...], joint: bool, dropout: float = 0.0) -> tuple[list[Tensor], float]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 4)).train()
    torch.manual_seed(2)
    batches = [(X[at], at) for at in torch.arange(12).split(list(split))]
    parameters = list(model.parameters())
    step = (joint_step if joint else separable_step)(
        batches, model, contrastive if joint else per_track, parameters
    )
    found = [p.grad.clone() for p in parameters if p.grad is not None]
    return found, float(step.total / step.count)


@pytest.mark.parametrize("joint", [False, True], ids=["over tracks", "over pairs"])
@pytest.mark.parametrize("split", SPLITS[1:], ids=str)
def test_any_split_of_a_step_gives_the_same_gradient(split: tuple[int, ...], joint: bool) -> None:
    (whole, loss), (parts, other) = gradient((12,), joint), gradient(split, joint)
    assert loss == pytest.approx(other, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts, strict=True))


def test_pairs_across_batches_count() -> None:
    """Batches on their own see too few pairs: caching is what makes the difference."""
    alone = torch.stack([contrastive(X[at][:, :4], at)[0] for at in torch.arange(12).split(6)]).sum()
    assert not torch.isclose(alone, contrastive(X[:, :4], torch.arange(12))[0])


def test_dropout_draws_the_same_when_outputs_are_computed_again() -> None:
    """The loss is derived at the outputs that it saw: the gradient is that of one graph over the same
    masks."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.5), nn.Linear(16, 4)).train()
    batches = [(X[at], at) for at in torch.arange(12).split(4)]
    torch.manual_seed(2)
    total, count = contrastive(torch.cat([model(x) for x, _ in batches]), torch.arange(12))
    (total / count).backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(2)
    joint_step(batches, model, contrastive, list(model.parameters()))
    assert all(
        torch.allclose(p.grad, e, atol=1e-6)
        for p, e in zip(model.parameters(), expected, strict=True)
        if p.grad is not None
    )


def test_a_step_without_anything_to_learn_leaves_the_gradient_zero() -> None:
    model = nn.Linear(5, 4)
    even = torch.tensor([0, 1, 4, 5])
    step = separable_step([(X[even], even)], model, per_track, list(model.parameters()))
    assert float(step.count) == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
