"""What probing a backbone costs: 13 layers, 15 numbers, 8 strengths, 5 folds in 5 folds, 5 seeds.

Once as a test, small: `pytest benchmarks/bench_probes.py`. Timed, over 2,880 tracks: `make bench
PART=probes`."""

from __future__ import annotations

import os

import numpy as np
import pytest
from harness import Bench, Fact

from beatmeter.experiments.probes import Subject, probe

LAYERS, TARGETS, SEEDS, JOBS = 13, 15, 5, 2


def made(n: int, dim: int) -> tuple[Subject, dict[str, np.ndarray]]:
    """Tracks in groups of four, targets that every layer knows some of, columns that resemble each other."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, TARGETS))
    shared = rng.normal(size=(n, 200)) @ rng.normal(size=(200, dim)) * 0.3
    layers = {
        f"layer {k}": (
            shared + rng.normal(size=(n, dim)) + 0.1 * values @ rng.normal(size=(TARGETS, dim))
        ).astype(np.float32)
        for k in range(LAYERS)
    }
    names = tuple(f"target {k}" for k in range(TARGETS))
    groups = tuple(f"work {i // 4}" for i in range(n))
    ids = tuple(f"track {i}" for i in range(n))
    return Subject(ids, groups, names, ("",) * TARGETS, values, {}), layers


@pytest.mark.parametrize("dim", [768, 1536])
def test_probe(bench: Bench, dim: int) -> None:
    n, dim, seeds = (2880, dim, SEEDS) if bench.timed else (160, dim // 48, 1)
    subject, layers = made(n, dim)
    before = os.times()
    found = probe(subject, layers, {}, seeds, jobs=JOBS)
    after = os.times()
    seconds = after.elapsed - before.elapsed
    spent = sum(after[:4]) - sum(before[:4])  # of this process and of those that it waited for
    assert len(found.rows) == TARGETS
    title = (
        f"{LAYERS} layers of {dim} numbers, their mean, {TARGETS} targets, 8 strengths, 5 folds in 5 folds,"
        f" {SEEDS} seeds, {n:,} tracks, {JOBS} processes"
    )
    note = f"Processor time {spent:.0f} s."
    bench.record(Fact("probes", title, seconds, "s", 60.0 if dim == 768 else None, note=note))
