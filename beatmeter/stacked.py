"""Many heads at once: parameters stacked, one forward pass (torch.func.vmap), one optimiser; each head its own run.

The heads read the same features and have the same shape; seeds, rates, decay, clipping, dropout, noise, loss and patience
are each head's own. Every head sees the tracks, the crops, the masks and the shifts that it would see alone, and learns
the same. A head whose patience is over leaves the stack; so does one that diverges, and the others go on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from beatmeter import checkpoints
from beatmeter.course import Course
from beatmeter.errors import RunError
from beatmeter.features import Source, in_order
from beatmeter.fitting import Run, epoch_seed, fit_standardisation, judge, optimiser_steps, schedule
from beatmeter.heads import Chance, Head, add_noise, shift_lags, weighted_sum
from beatmeter.schema import Track

VALIDATION = 256  # tracks at a time
FREE = (  # settings in which heads of one stack may differ
    "seed",
    *(f"training.{name}" for name in ("epochs", "patience", "head_lr", "mix_lr", "weight_decay", "warmup", "clip", "select")),
    *(f"task.{name}" for name in ("smoothing", "loss", "weighting", "weight_cap")),
    *(f"head.{name}" for name in ("dropout", "noise")),
    "augment.lag_shift",
)


class _Classify(nn.Module):
    """`Head.classify` as a module, which functional_call wants; `there` says which masks are given."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, mixed: Mapping[str, Tensor], masks: Sequence[Tensor], there: Sequence[bool]) -> Tensor:
        given = iter(masks)
        return self.head.classify(mixed, [next(given) if here else None for here in there])


class Stack:
    """Parameters of several heads as matrices (head, value), one for each group of the optimiser; row i is `members[i]`'s."""

    def __init__(self, members: Sequence[Run]) -> None:
        self.members = list(members)
        first = self.members[0].model.head
        self.device = self.members[0].model.device
        self.frame = _Classify(copy.deepcopy(first)).train()
        at = {id(p): name for name, p in first.named_parameters()}
        self.names = {"head": [at[id(p)] for p in first.own_parameters()], "mix": [at[id(p)] for p in first.mix_parameters()]}
        self.shapes = {name: p.shape for name, p in first.named_parameters()}
        heads = [dict(m.model.head.named_parameters()) for m in self.members]
        self.flat = {
            group: torch.stack([torch.cat([h[name].detach().reshape(-1) for name in names]) for h in heads]).requires_grad_()
            for group, names in self.names.items()
        }
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.AdamW:
        """One optimiser; every row of every matrix is a parameter group, with a rate and a decay of its own."""
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
        """Only these heads from now on."""
        before = {(g["name"], g["row"]): self.optimiser.state[g["params"][0]] for g in self.optimiser.param_groups}
        self.members = [self.members[i] for i in rows]
        self.flat = {group: x.detach()[torch.tensor(rows, dtype=torch.long, device=self.device)].requires_grad_() for group, x in self.flat.items()}
        self.optimiser = self._optimiser()
        for g in self.optimiser.param_groups:
            self.optimiser.state[g["params"][0]] = before[g["name"], rows[g["row"]]]

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter (head, *shape) by name, as parts of the matrices."""
        found: dict[str, Tensor] = {}
        for group, names in self.names.items():
            parts = torch.split(self.flat[group], [self.shapes[name].numel() for name in names], dim=1)
            found |= {name: part.reshape(-1, *self.shapes[name]) for name, part in zip(names, parts, strict=True)}
        return found

    def logits(self, features: Sequence[tuple[slice, Mapping[str, Tensor]]], chances: Sequence[Chance] | None) -> Tensor:
        """(head, track, class) from standardised features, given once for each run of heads that reads the same tracks."""
        parameters = self.parameters()
        mixed = {}
        for name in self.frame.head.poolings:
            weights = parameters[f"mix.{name}.logits"].softmax(dim=-1)
            x = torch.cat([weighted_sum(weights[which], some[name].float()).transpose(0, 1) for which, some in features])
            if chances is not None:
                x = self._perturbed(x, weights, name, chances)
            mixed[name] = x
        there = [False] * len(self.frame.head.drops)
        masks: list[Tensor] = []
        if chances is not None:
            there = [any(c.masks[i] is not None for c in chances) for i in range(len(there))]
            masks = [_stacked([c.masks[i] for c in chances], 1.0) for i, here in enumerate(there) if here]
        own = {f"head.{name}": parameters[name] for name in self.names["head"]}
        found: Tensor = vmap(lambda p, x, m: functional_call(self.frame, p, (x, m, there)))(own, mixed, masks)
        return found

    def _perturbed(self, x: Tensor, weights: Tensor, name: str, chances: Sequence[Chance]) -> Tensor:
        if name in self.frame.head.shifting and any(c.shifts is not None for c in chances):
            x = shift_lags(x, _stacked([c.shifts for c in chances], 0))
        if any(name in c.noise for c in chances):
            x = add_noise(x, weights, _stacked([c.noise.get(name) for c in chances], 0.0))
        return x

    def step(self, share: Sequence[float]) -> Tensor:
        """One step of AdamW for every head, at this share of its peak rates, after clipping its gradient; the norms (head,)
        before. Gradients are gone afterwards."""
        gradients = {group: cast(Tensor, x.grad) for group, x in self.flat.items()}
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
        """The learning rates of a head's last step, by group."""
        return {g["name"]: g["lr"] for g in self.optimiser.param_groups if g["row"] == row}

    def give(self, row: int) -> dict[str, Tensor]:
        """Put a head's parameters into its own model; its moments as `checkpoints.optimiser_tensors` has them."""
        own, moments, i = dict(self.members[row].model.head.named_parameters()), {}, 0
        state = {g["name"]: self.optimiser.state[g["params"][0]] for g in self.optimiser.param_groups if g["row"] == row}
        with torch.no_grad():
            for group, names in self.names.items():
                at = 0
                for name in names:
                    shape = self.shapes[name]
                    part = slice(at, at := at + shape.numel())
                    own[name].copy_(self.flat[group][row, part].view(shape))
                    for kind, value in state[group].items():
                        moments[f"optimiser.{i}.{kind}"] = value if kind == "step" else value[part].view(shape)
                    i += 1
        return moments


def _stacked(parts: Sequence[Tensor | None], neutral: float) -> Tensor:
    """The parts as one tensor, `neutral` where there is none."""
    like = next(p for p in parts if p is not None)
    return torch.stack([torch.full_like(like, neutral) if p is None else p for p in parts])


def fit_stacked(
    members: Sequence[Run],
    train: Sequence[Track],
    val: Sequence[Track],
    report: Callable[[str], None] = print,
    progress: Callable[[int], object] = lambda n: None,
) -> dict[Path, RunError]:
    """Train all heads, which must share one source and differ only in the settings of `FREE`; every run folder ends as if
    its head had been trained alone, and every model holds its best epoch. `progress(n)`: n more epochs of heads are over.

    Given back are the heads whose loss is not finite any more, by run folder: their last sound epoch is on disk.
    """
    source = members[0].model.source
    for member in members:
        if member.config.head.standardise:
            fit_standardisation(member.model, train, source.step_size(member.config.training))
            source.standardise(member.model.head.scales())
    stack = Stack(sorted(members, key=lambda m: m.config.seed))
    targets = torch.from_numpy(members[0].model.task.targets(train)[0]).float().to(stack.device)
    courses = [Course(m.folder, m.about, m.config.training) for m in stack.members]
    every = list(zip(stack.members, courses, strict=True))
    failed: dict[Path, RunError] = {}
    epoch = 0
    try:
        while courses:
            epoch, began = epoch + 1, time.monotonic()
            losses, norms = _epoch(stack, source, train, targets, epoch)
            logits = _validation(stack, source, val)
            seconds = round((time.monotonic() - began) / len(courses), 3)
            sound = torch.isfinite(norms).cpu().numpy() & np.isfinite(logits).all(axis=(1, 2))
            for row, (member, course) in enumerate(zip(stack.members, courses, strict=True)):
                if not sound[row]:
                    path = member.folder.path
                    failed[path] = RunError(f"the loss of {path.name} is not finite in epoch {epoch}", "Lower the learning rates.")
                    continue
                moments = stack.give(row)
                head, task = member.model.head, member.model.task
                line = {
                    "epoch": epoch,
                    "train": {"loss": float(losses[row]), "gradient_norm": float(norms[row])},
                    "val": judge(task, val, logits[row]),
                    "layer_weights": head.layer_weights(),
                    "learning_rates": stack.rates(row),
                    "seconds": seconds,
                }
                course.add(line, task.state(), member.model.tensors, lambda moments=moments: moments)  # type: ignore[misc]
            going = [i for i, course in enumerate(courses) if sound[i] and not course.over]
            progress(len(courses) + sum(c.training.epochs - epoch for i, c in enumerate(courses) if i not in going))
            if len(going) < len(courses):
                for i, course in enumerate(courses):
                    if i not in going:
                        course.close()
                courses = [courses[i] for i in going]
                if going:
                    stack.keep(going)
    finally:
        for course in courses:
            course.close()
    for member, course in every:
        if member.folder.path in failed:
            continue
        member.model.load(checkpoints.read(member.folder.best)[0], member.folder.best)
        assert course.best is not None
        report(f"{member.folder.path.name}: {course.epoch} epochs, best {course.best['epoch']}: {member.model.task.epoch_line(course.best['val'])}")
    return failed


def _epoch(stack: Stack, source: Source, train: Sequence[Track], targets: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
    """One pass of every head over the train split: mean losses (head,) and mean gradient norms (head,)."""
    members = stack.members
    generators = [torch.Generator(stack.device).manual_seed(epoch_seed(m.config.seed, epoch, 1)) for m in members]
    streams, plans = [], []
    for which in _runs([m.config.seed for m in members]):
        config = members[which.start].config
        plans.append(optimiser_steps(len(train), config, epoch))
        streams.append((which, source.batches(train, plans[-1], seed=(config.seed, epoch))))
    tasks = _runs_of_tasks(members)
    count = len(plans[0])
    total, norms = torch.zeros(len(members), device=stack.device), torch.zeros(len(members), device=stack.device)
    stack.frame.train()
    for number in range(count):
        batches = [(which, next(stream)) for which, stream in streams]
        size = len(plans[0][number])
        chances = [m.model.head.draw(size, g, m.config.augment.lag_shift) for m, g in zip(members, generators, strict=True)]
        logits = stack.logits([(which, batch.inputs) for which, batch in batches], chances)
        wanted = torch.cat([targets[torch.from_numpy(b.index).to(targets.device)].expand(w.stop - w.start, -1, -1) for w, b in batches])
        losses = torch.zeros(len(members), size, device=stack.device)
        for task, rows in tasks:
            losses[rows] = task.loss(logits[rows].flatten(0, 1), wanted[rows].flatten(0, 1)).view(len(rows), size)
        sums = losses.sum(1)
        (sums.sum() / size).backward()  # type: ignore[no-untyped-call]
        total += sums.detach()
        done = (epoch - 1) * count + number
        norms += stack.step([schedule(done / (m.config.training.epochs * count), m.config.training.warmup) for m in members])
    return total / len(train), norms / count


def _validation(stack: Stack, source: Source, val: Sequence[Track]) -> np.ndarray:
    """Logits (head, track, class) in evaluation mode."""
    stack.frame.eval()
    everyone = slice(0, len(stack.members))
    with torch.no_grad():
        found = [stack.logits([(everyone, batch.inputs)], None).cpu() for batch in source.batches(val, in_order(len(val), VALIDATION))]
    return torch.cat(found, dim=1).numpy()


def _runs(values: Sequence[int]) -> list[slice]:
    """Where runs of equal neighbours lie."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _runs_of_tasks(members: Sequence[Run]) -> list[tuple[Any, list[int]]]:
    """Tasks with different settings, and the rows of the heads that learn them."""
    rows: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        rows.setdefault(member.config.task, []).append(i)
    return [(members[some[0]].model.task, some) for some in rows.values()]
