"""Heads that see the same tracks in every step, one after the other: batches are read once, layers are mixed
for all of them in one product, and each head's own parameters stay in the processor's cache while it learns.

Seeds with `training.order=shared` go in step, and so do settings that are compared on one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.learning import checkpoints
from beatmeter.learning.lag_shift import draw_shifts, shifted
from beatmeter.learning.loop import Run, head_seed, optimiser_steps, order_seed
from beatmeter.learning.optimiser import optimiser_for, schedule
from beatmeter.learning.sources import Source, in_order
from beatmeter.schema import Track
from beatmeter.tasks import TrackTruth
from beatmeter.tasks.heads import LayerMix, Stackable, draw_from, weighted_sum

TOGETHER = 64  # tracks of validation at a time: their mixed layers for some heads stay in cache


class InStep:
    """Heads for which `stacked.read_by` is equal, each with its own module and optimiser."""

    def __init__(self, members: Sequence[Run]) -> None:
        self.members = list(members)
        self.optimisers = [optimiser_for(m.model, m.config) for m in members]
        self.poolings = cast(Stackable, members[0].model.head).poolings

    def keep(self, rows: Sequence[int]) -> None:
        self.members = [self.members[i] for i in rows]
        self.optimisers = [self.optimisers[i] for i in rows]

    def epoch(
        self,
        source: Source,
        train: Sequence[Track],
        targets: TrackTruth,
        epoch: int,
        heed: Callable[[], object],
    ) -> tuple[Tensor, Tensor]:
        first = self.members[0]
        seed = (order_seed(first.config), epoch)
        steps = optimiser_steps(first.model.task, train, first.config, epoch)
        shifts = draw_shifts(len(train), seed, first.config.augment.lag_shift)
        generators = [torch.Generator(m.model.device) for m in self.members]
        for m, generator in zip(self.members, generators, strict=True):
            draw_from(m.model.head.train(), generator)
        total, count, norms = (np.zeros(len(self.members)) for _ in range(3))
        for number, batch in enumerate(source.batches(train, steps, seed=seed)):
            heed()
            by = None if shifts is None else shifts[batch.index]
            features = shifted(source.features(batch), source.spec, by)
            weights = self._weights()
            mixed = self._mixed(features, weights)
            wanted, known = targets.of(torch.from_numpy(batch.index), features)
            counts = []
            for row, (m, generator) in enumerate(zip(self.members, generators, strict=True)):
                generator.manual_seed(head_seed(m.config.seed, epoch, number))
                own = {name: values[row] for name, values in mixed.items()}
                outputs = cast(Stackable, m.model.head).readout(own)
                loss, n = m.model.task.loss(outputs, wanted, known, m.model.state)
                loss.backward()  # type: ignore[no-untyped-call]
                counts.append(n)
                total[row] += float(loss.detach())
                count[row] += float(n)
            self._mix_backward(features, weights, mixed)
            done = (epoch - 1) * len(steps) + number
            for row, n in enumerate(counts):
                norms[row] += self._step(row, n, done / len(steps))
        return torch.from_numpy(total / np.maximum(count, 1e-12)), torch.from_numpy(norms / len(steps))

    def validation(self, source: Source, val: Sequence[Track]) -> np.ndarray:
        found: list[list[Tensor]] = [[] for _ in self.members]
        with torch.inference_mode():
            weights = self._weights()
            for m in self.members:
                m.model.head.eval()
            for batch in source.batches(val, in_order(len(val), TOGETHER)):
                mixed = self._mixed(source.features(batch), weights)
                for row, m in enumerate(self.members):
                    own = {name: values[row] for name, values in mixed.items()}
                    found[row].append(cast(Stackable, m.model.head).readout(own).float().cpu())
        return torch.stack([torch.cat(parts) for parts in found]).numpy()

    def rates(self, row: int) -> dict[str, float]:
        return {g["name"]: g["lr"] for g in self.optimisers[row].param_groups}

    def give(self, row: int) -> dict[str, Tensor]:
        return checkpoints.optimiser_tensors(self.optimisers[row])

    def _weights(self) -> dict[str, Float[Tensor, "head layer"]]:
        """The weights of layers of every head, by pooling."""
        return {
            name: torch.stack([cast(LayerMix, m.model.head.mix[name]).weights for m in self.members])  # type: ignore[index]
            for name in self.poolings
        }

    def _mixed(
        self, features: Mapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> dict[str, list[Float[Tensor, "track ..."]]]:
        """Mixed layers for each head, by pooling: leaves that gather the gradient of their head."""
        found = {}
        for name in self.poolings:
            mixed = weighted_sum(weights[name].detach(), features[name].float())
            found[name] = [
                mixed[:, row].requires_grad_(torch.is_grad_enabled()) for row in range(len(weights[name]))
            ]
        return found

    def _mix_backward(
        self,
        features: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        mixed: Mapping[str, Sequence[Tensor]],
    ) -> None:
        """From the gradients of mixed layers to those of the weights of layers, in one product."""
        for name in self.poolings:
            gradients = torch.stack([cast(Tensor, leaf.grad) for leaf in mixed[name]], dim=1).flatten(2)
            by_track = torch.bmm(gradients, features[name].float().flatten(2).transpose(1, 2))
            torch.autograd.backward([weights[name]], [by_track.sum(0)])

    def _step(self, row: int, count: Tensor, epochs: float) -> float:
        """A head's step of AdamW, after so many epochs; the gradient's norm before clipping. What is not
        finite moves nothing."""
        optimiser, training = self.optimisers[row], self.members[row].config.training
        share = schedule(epochs / training.epochs, training.warmup)
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * share
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        scale = 1 / count.clamp_min(1e-12)
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(scale)
        norm = float(nn.utils.clip_grad_norm_(parameters, training.clip))
        if math.isfinite(norm):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm
