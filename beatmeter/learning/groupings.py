"""Training of the networks that name groupings: clips whose beats are known, folded by the bars that were
found and by the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from beatmeter.tasks.structure.folding import Grid, Reading, extended, fold
from beatmeter.tasks.structure.grouping import ADDITIVE, GroupingNetwork, about

CLOSE, STEADY, OFF = 1.06, 0.75, 0.4  # ratio of bars; how steadily bars begin at a pulse; pulses beside it
CLIPS, RATE, DECAY, DROPOUT = 24, 3e-3, 0.3, 0.4


@dataclass(frozen=True)
class Example:
    """A clip of one additive meter. readings: of its bars as they were found and scaled. right: the one whose
    bars are right, and `pulse`: where in it bars begin; -1 where none is. true: its one reading by true
    bars, which begin at pulse 0; None where they are not known."""

    meter: str
    grouping: int  # place in ADDITIVE
    readings: tuple[Reading, ...]
    right: int
    pulse: int
    true: Reading | None = None


def example_of(
    meter: str,
    grouping: int,
    found: Sequence[Reading],
    downbeats: Float[np.ndarray, " bar"],
    frames: Float[np.ndarray, "time channel"],
    rate: float,
    start: float,
) -> Example:
    """A clip with its readings, which of them is right, and its frames folded by true downbeats (seconds)."""
    pulses = int(meter)
    if len(downbeats) < 2:
        return Example(meter, grouping, tuple(found), -1, -1)
    right, pulse, least = -1, -1, OFF
    for number, reading in enumerate(found):
        at = reading.grid.at(downbeats)
        ratio = max(float(np.median(np.diff(at))) / pulses, 1e-6)
        mean = np.exp(2j * np.pi * at / pulses).mean()
        begins = float(np.angle(mean)) / (2 * np.pi) * pulses % pulses
        off = abs(begins - round(begins))
        if abs(np.log(ratio)) < np.log(CLOSE) and abs(mean) > STEADY and off <= least:
            right, pulse, least = number, round(begins) % pulses, off
    grid = extended(Grid(downbeats, pulses * np.arange(len(downbeats), dtype=float)))
    rows = fold(frames, rate, start, grid, pulses)
    true = Reading(grid, rows, float(np.median(np.diff(downbeats))), False)
    return Example(meter, grouping, tuple(found), right, pulse, true)


def train_network(examples: Sequence[Example], seed: int, epochs: int = 10) -> GroupingNetwork:
    """One network. An example teaches by its readings, all of whose pulses and groupings compete, where one
    is right, and by true bars; every time by some half or more of its bars."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    known = [e for e in examples if e.right >= 0]
    alone = [Example(e.meter, e.grouping, (e.true,), 0, 0) for e in examples if e.true is not None]
    bars = np.concatenate([e.readings[e.right].rows.astype(np.float32).mean(axis=0) for e in known])
    network = GroupingNetwork(bars.shape[1], DROPOUT)
    network.mean.copy_(torch.from_numpy(bars.mean(axis=0)))
    network.deviation.copy_(torch.from_numpy(bars.std(axis=0) + 1e-3))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    sets = [[e for e in own if e.meter == meter] for own in (known, alone) for meter in ADDITIVE]
    steps = epochs * sum(-(-len(own) // CLIPS) for own in sets)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1, pct_start=0.15)
    network.train()
    for _ in range(epochs):
        batches = []
        for own in sets:
            order = rng.permutation(len(own))
            batches += [[own[i] for i in order[a : a + CLIPS]] for a in range(0, len(own), CLIPS)]
        for number in rng.permutation(len(batches)):
            loss = _loss(network, batches[number], rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval()


def _loss(network: GroupingNetwork, batch: Sequence[Example], rng: np.random.Generator) -> torch.Tensor:
    bars = np.stack([_mean_of_some(r.rows, rng) for e in batch for r in e.readings])
    beside = np.concatenate([about(e.readings) for e in batch])
    meter = batch[0].meter
    outputs = network(torch.from_numpy(bars), torch.from_numpy(beside), meter)
    losses, at = [], 0
    for e in batch:
        own = outputs[at : at + len(e.readings)]
        losses.append(own.flatten().logsumexp(0) - own[e.right, e.pulse, e.grouping])
        at += len(e.readings)
    return torch.stack(losses).mean()


def _mean_of_some(
    rows: Float[np.ndarray, "bar part channel"], rng: np.random.Generator
) -> Float[np.ndarray, "part channel"]:
    count = int(rng.integers(max(1, len(rows) // 2), len(rows) + 1))
    some = rng.choice(len(rows), count, replace=False)
    mean: np.ndarray = rows[some].astype(np.float32).mean(axis=0)
    return mean


def threshold_of(
    sure: Float[np.ndarray, " item"], right: Float[np.ndarray, " item"], share: float = 0.85, least: int = 30
) -> float:
    """The lowest value from which on a share of the items is right, `least` of them at least; above all of
    them where there is none."""
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero((shares >= share) & (np.arange(1, len(order) + 1) >= least))
    return float(sure[order][good[-1]]) if len(good) else 2.0
