"""The terminal report fits 100 columns and says what the JSON says."""

from __future__ import annotations

import dataclasses
import json

import meter_controls as controls
import numpy as np
import pytest

from beatmeter.evaluation.diagnostics import Limits
from beatmeter.evaluation.metrics import by_source, source_only
from beatmeter.evaluation.report import Evaluation, evaluation_text
from beatmeter.evaluation.report.text import verdict_text
from beatmeter.schema import ClassPredictions

FAST = Limits(permutations=100, replicates=100)


@pytest.mark.parametrize("control", [controls.polymetric, controls.leaky, controls.confused])
def test_text_fits_and_agrees_with_json(control: type) -> None:
    p = control(0, songs=80)
    e = Evaluation.of(p, control(9, songs=80, split="val"), FAST)
    text = evaluation_text(e)
    assert max(map(len, text.splitlines())) <= 100
    found = json.loads(json.dumps(e.to_json(), allow_nan=False))
    assert f"verdict: {verdict_text(found['verdict'])}" in text
    assert f"{found['metrics']['accuracy']['value']:.3f}" in text
    assert found["confusion"] == [
        [int(((p.primary == i) & (p.scores.argmax(axis=1) == j)).sum()) for j in range(6)] for i in range(6)
    ]
    assert {f["name"] for f in found["findings"]} == {f.name for f in e.findings}
    for f in e.findings:
        assert f.name == "summary" or f"{f.title}: " in text


def test_long_names_are_cut_and_wide_matrices_become_lists() -> None:
    p = controls.confused(0, songs=40)
    long = dataclasses.replace(
        p,
        classes=tuple(f"a very long class name number {c}" for c in p.classes),
        sources=("a source " * 20,) * len(p),
    )
    long = dataclasses.replace(
        long, sources=tuple(f"{s} {i % 2}" for i, s in enumerate(long.sources)), meta={"run": "x" * 300}
    )
    text = evaluation_text(Evaluation.of(long, limits=FAST))
    assert max(map(len, text.splitlines())) <= 100
    n = 16
    wide = ClassPredictions(
        classes=tuple(f"class {i}" for i in range(n)),
        ids=tuple(map(str, range(2 * n))),
        groups=tuple(map(str, range(2 * n))),
        sources=("",) * 2 * n,
        split="test",
        targets=np.tile(np.eye(n), (2, 1)),
        scores=np.vstack([np.eye(n), np.roll(np.eye(n), 1, axis=1)]),
        primary=np.tile(np.arange(n), 2),
        times=np.full((2 * n, 2), np.nan),
    )
    text = evaluation_text(Evaluation.of(wide, limits=FAST))
    assert "class 2 heard as class 3: 1" in text
    assert max(map(len, text.splitlines())) <= 100


def test_source_alone_is_counted_without_the_own_group() -> None:
    """Two sources, each with its own class: the source gives the answer away. A song must not vouch for
    itself."""
    p = controls.selective(0, songs=60)
    primary = np.array([0 if s == "FMA" else 1 for s in p.sources])
    betrayed = dataclasses.replace(p, primary=primary, targets=np.eye(6)[primary])
    assert np.nanmean(source_only(betrayed)) == 1.0
    alone = dataclasses.replace(
        betrayed, sources=betrayed.groups
    )  # every song its own source: nothing can be known from it
    everywhere = [
        np.bincount(primary[np.array(alone.groups) != g], minlength=6).argmax() for g in alone.groups
    ]
    np.testing.assert_array_equal(source_only(alone), (np.array(everywhere) == primary).astype(float))
    rows = {r.source: r for r in by_source(betrayed)}
    assert (rows["FMA"].majority, rows["FMA"].majority_share, rows["FMA"].source_only) == ("3", 1.0, 1.0)
    reference = dataclasses.replace(
        betrayed, primary=np.full(len(p), 5), targets=np.eye(6)[np.full(len(p), 5)]
    )
    assert np.nanmean(source_only(betrayed, reference)) == 0.0
