"""Many heads at once: parameters stacked, one forward pass (torch.func.vmap), one optimiser; each head its
own run.

The heads read the same features and have the same shape (`heads.Stackable`); seeds, rates, decay, clipping,
dropout, noise, loss and patience are each head's own. Every head sees the tracks, the crops, the shifts and
the dropout that it would see alone, and learns the same. A head whose patience is over leaves the stack; so
does one that diverges, and the others go on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from beatmeter.learning.lag_shift import draw_shifts, shifted
from beatmeter.learning.loop import Run, head_seed, optimiser_steps, order_seed, read_by
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import schedule
from beatmeter.learning.sources import Source, in_order
from beatmeter.schema import Track
from beatmeter.tasks import TrackTruth
from beatmeter.tasks.heads import (
    Stackable,
    draw_apart,
    draw_from,
    mix_parameters,
    own_parameters,
    weighted_sum,
)

VALIDATION = 256  # tracks at a time


class _Readout(nn.Module):
    """A head's `readout` as a module, which functional_call wants."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, mixed: Mapping[str, Tensor]) -> Tensor:
        return cast(Stackable, self.head).readout(mixed)


class Stack:
    """Parameters of several heads as matrices (head, value), one for each group of the optimiser; row i is
    `members[i]`'s."""

    def __init__(self, members: Sequence[Run]) -> None:
        self.members = sorted(members, key=read_by)
        first = self.members[0].model.head
        self.device = self.members[0].model.device
        self.frame = _Readout(copy.deepcopy(first)).train()
        self.poolings = cast(Stackable, first).poolings
        at = {id(p): name for name, p in first.named_parameters()}
        self.names = {
            "head": [at[id(p)] for p in own_parameters(first)],
            "mix": [at[id(p)] for p in mix_parameters(first)],
        }
        self.shapes = {name: p.shape for name, p in first.named_parameters()}
        heads = [dict(m.model.head.named_parameters()) for m in self.members]
        self.flat = {
            group: torch.stack(
                [torch.cat([h[name].detach().reshape(-1) for name in names]) for h in heads]
            ).requires_grad_()
            for group, names in self.names.items()
        }
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.AdamW:
        """One optimiser; every row of every matrix is a parameter group, with a rate and a decay of its
        own."""
        groups = [
            {
                "params": [nn.Parameter(self.flat[group].detach()[row])],
                "name": group,
                "row": row,
                "weight_decay": member.config.training.weight_decay if group == "head" else 0.0,
            }
            for row, member in enumerate(self.members)
            for group in self.flat
        ]
        return torch.optim.AdamW(groups, fused=self.device.type in ("cpu", "cuda"))

    def keep(self, rows: Sequence[int]) -> None:
        before = {
            (g["name"], g["row"]): self.optimiser.state[g["params"][0]] for g in self.optimiser.param_groups
        }
        self.members = [self.members[i] for i in rows]
        self.flat = {
            group: x.detach()[torch.tensor(rows, dtype=torch.long, device=self.device)].requires_grad_()
            for group, x in self.flat.items()
        }
        self.optimiser = self._optimiser()
        for g in self.optimiser.param_groups:
            self.optimiser.state[g["params"][0]] = before[g["name"], rows[g["row"]]]

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter (head, *shape) by name, as parts of the matrices."""
        found: dict[str, Tensor] = {}
        for group, names in self.names.items():
            parts = torch.split(self.flat[group], [self.shapes[name].numel() for name in names], dim=1)
            found |= {
                name: part.reshape(-1, *self.shapes[name]) for name, part in zip(names, parts, strict=True)
            }
        return found

    def outputs(self, features: Sequence[tuple[slice, Mapping[str, Tensor]]]) -> Tensor:
        """(head, track, name) from standardised features, given once for each run of heads that reads the
        same tracks."""
        parameters = self.parameters()
        mixed = {}
        for name in self.poolings:
            weights = parameters[f"mix.{name}.logits"].softmax(dim=-1)
            mixed[name] = torch.cat(
                [
                    weighted_sum(weights[which], values[name].float()).transpose(0, 1)
                    for which, values in features
                ]
            )
        own = {f"head.{name}": value for name, value in parameters.items()}
        found: Tensor = vmap(lambda p, x: functional_call(self.frame, p, (x,)), randomness="error")(
            own, mixed
        )
        return found

    def step(self, count: Float[Tensor, " head"], share: Sequence[float]) -> Tensor:
        """One step of AdamW for every head, at this share of its peak rates, after dividing the gradient of
        its summed loss by the `count` of losses and clipping it; the norms (head,) before clipping. Gradients
        are gone afterwards."""
        gradients = {
            group: cast(Tensor, x.grad).mul_(1 / count.clamp_min(1e-12)[:, None])
            for group, x in self.flat.items()
        }
        norms = torch.stack([g.square().sum(1) for g in gradients.values()]).sum(0).sqrt()
        clip = torch.tensor([m.config.training.clip for m in self.members], device=self.device)
        factor = (clip / (norms + 1e-6)).clamp(max=1.0)[:, None]
        for g in gradients.values():
            g.mul_(factor)
        for group in self.optimiser.param_groups:
            training = self.members[group["row"]].config.training
            group["lr"] = getattr(training, f"{group['name']}_lr") * share[group["row"]]
            group["params"][0].grad = gradients[group["name"]][group["row"]]
        self.optimiser.step()
        for x in self.flat.values():
            x.grad = None
        return norms

    def rates(self, row: int) -> dict[str, float]:
        return {g["name"]: g["lr"] for g in self.optimiser.param_groups if g["row"] == row}

    def epoch(
        self,
        source: Source,
        train: Sequence[Track],
        targets: TrackTruth,
        epoch: int,
        heed: Callable[[], object],
    ) -> tuple[Tensor, Tensor]:
        members = self.members
        generators = [torch.Generator(self.device) for _ in members]
        for m, generator in zip(members, generators, strict=True):
            draw_from(m.model.head, generator)
        draw_apart(self.frame.head, [m.model.head for m in members])
        streams, plans = [], []
        for which in _runs(list(map(read_by, members))):
            config = members[which.start].config
            seed = (order_seed(config), epoch)
            plans.append(optimiser_steps(members[which.start].model.task, train, config, epoch))
            shifts = draw_shifts(len(train), seed, config.augment.lag_shift)
            streams.append((which, source.batches(train, plans[-1], seed=seed), shifts))
        tasks = _runs_of_tasks(members)
        steps = len(plans[0])
        total, count, norms = (torch.zeros(len(members), device=self.device) for _ in range(3))
        self.frame.train()
        for number in range(steps):
            heed()
            for m, generator in zip(members, generators, strict=True):
                generator.manual_seed(head_seed(m.config.seed, epoch, number))
            batches = [(which, next(stream), shifts) for which, stream, shifts in streams]
            features = [
                (w, shifted(source.features(b), source.spec, None if by is None else by[b.index]))
                for w, b, by in batches
            ]
            found = self.outputs(features)
            at = [
                torch.from_numpy(b.index).to(self.device).expand(w.stop - w.start, -1) for w, b, _ in batches
            ]
            wanted, known = (x[torch.cat(at)] for x in targets)
            sums, counts = [torch.zeros(())] * len(members), [torch.zeros(())] * len(members)
            for model, rows in tasks:
                for row in rows:
                    sums[row], counts[row] = model.task.loss(found[row], wanted[row], known[row], model.state)
            losses, n = torch.stack(sums), torch.stack(counts).to(self.device)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total, count = total + losses.detach(), count + n
            done = (epoch - 1) * steps + number
            norms += self.step(
                n,
                [
                    schedule(done / (m.config.training.epochs * steps), m.config.training.warmup)
                    for m in members
                ],
            )
        return total / count.clamp_min(1e-12), norms / steps

    def validation(self, source: Source, val: Sequence[Track]) -> np.ndarray:
        self.frame.eval()
        everyone = slice(0, len(self.members))
        with torch.no_grad():
            found = [
                self.outputs([(everyone, source.features(batch))]).cpu()
                for batch in source.batches(val, in_order(len(val), VALIDATION))
            ]
        return torch.cat(found, dim=1).numpy()

    def give(self, row: int) -> dict[str, Tensor]:
        own, moments, i = dict(self.members[row].model.head.named_parameters()), {}, 0
        state = {
            g["name"]: self.optimiser.state[g["params"][0]]
            for g in self.optimiser.param_groups
            if g["row"] == row
        }
        with torch.no_grad():
            for group, names in self.names.items():
                at = 0
                for name in names:
                    shape = self.shapes[name]
                    part = slice(at, at := at + shape.numel())
                    own[name].copy_(self.flat[group][row, part].view(shape))
                    for kind, value in state[group].items():
                        moments[f"optimiser.{i}.{kind}"] = (
                            value if kind == "step" else value[part].view(shape)
                        )
                    i += 1
        return moments


def _runs(values: Sequence[tuple[int, int]]) -> list[slice]:
    """Where runs of equal neighbours lie."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _runs_of_tasks(members: Sequence[Run]) -> list[tuple[Model, list[int]]]:
    """Tasks with different settings, and the rows of the heads that learn them."""
    rows: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        rows.setdefault(member.config.task, []).append(i)
    return [(members[same[0]].model, same) for same in rows.values()]
