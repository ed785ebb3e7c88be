"""What each loss settles at: the trap of weighting a smoothed target, and the loss that does not fall into
it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beatmeter.tasks.losses import LOSSES, floor_of_negative

SMOOTHING = 0.1


def untrained_optimum(loss: str, weight: np.ndarray, prior: np.ndarray, smoothing: float) -> np.ndarray:
    """The sigmoid that minimises the loss when nothing is known but the class frequencies `prior`.

    unbiased: (w pi + e (1 - pi)) / (w pi + 1 - pi); pos_weight: w y / (w y + 1 - y) with y = pi (1 - e) + e.
    """
    w, pi = np.asarray(weight, dtype=float), np.asarray(prior, dtype=float)
    result: np.ndarray
    if loss == "unbiased":
        result = (w * pi + smoothing * (1 - pi)) / (w * pi + 1 - pi)
    else:
        y = pi * (1 - smoothing) + smoothing
        result = w * y / (w * y + 1 - y)
    return result


def settle(loss: str, targets: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """The sigmoids at which gradient descent on free logits (one per class) comes to rest."""
    logits = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = LOSSES[loss](logits.expand_as(targets), targets, weight, SMOOTHING).mean()
        value.backward()
        return value

    optimiser.step(closure)
    return torch.sigmoid(logits).detach().numpy()


@pytest.mark.parametrize("weight", [1.0, 3.0, 10.0, 40.0])
def test_a_certain_negative_settles_at_the_smoothing_whatever_the_weight(weight: float) -> None:
    negatives = torch.zeros(8, 1, dtype=torch.float64)
    w = torch.tensor([weight], dtype=torch.float64)
    assert settle("unbiased", negatives, w) == pytest.approx([SMOOTHING], abs=1e-6)
    biased = weight * SMOOTHING / (weight * SMOOTHING + 1 - SMOOTHING)
    assert settle("pos_weight", negatives, w) == pytest.approx([biased], abs=1e-6)
    assert floor_of_negative("unbiased", w.numpy(), SMOOTHING) == pytest.approx([SMOOTHING])
    assert floor_of_negative("pos_weight", w.numpy(), SMOOTHING) == pytest.approx([biased])


def test_the_plain_form_puts_a_negative_above_one_half_at_weight_ten() -> None:
    assert floor_of_negative("pos_weight", np.array([10.0]), SMOOTHING)[0] == pytest.approx(0.526, abs=1e-3)


def test_a_certain_positive_settles_at_one() -> None:
    positives = torch.ones(4, 1, dtype=torch.float64)
    for loss in LOSSES:
        assert settle(loss, positives, torch.ones(1, dtype=torch.float64))[0] > 0.9999


def test_an_untrained_model_prefers_no_class_under_the_unbiased_loss() -> None:
    counts = np.array([720, 720, 120, 120, 40, 20])
    n = counts.sum()
    targets = torch.zeros(n, len(counts), dtype=torch.float64)
    targets[torch.arange(n), torch.from_numpy(np.repeat(np.arange(len(counts)), counts))] = 1
    weight = (n - counts) / counts
    found = settle("unbiased", targets, torch.from_numpy(weight))
    assert np.ptp(found) < 1e-6
    assert found == pytest.approx(untrained_optimum("unbiased", weight, counts / n, SMOOTHING), abs=1e-6)
    biased = settle("pos_weight", targets, torch.from_numpy(weight))
    assert biased == pytest.approx(untrained_optimum("pos_weight", weight, counts / n, SMOOTHING), abs=1e-6)
    assert biased.argmax() == len(counts) - 1, "the plain form prefers the rarest class"
    assert biased.max() > 0.8


def test_label_weights_lie_between_absent_and_present() -> None:
    soft = torch.full((4, 1), 0.7, dtype=torch.float64)
    found = settle("unbiased", soft, torch.ones(1, dtype=torch.float64))[0]
    assert found == pytest.approx(0.7 + 0.3 * SMOOTHING, abs=1e-6)
