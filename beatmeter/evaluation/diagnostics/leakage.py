"""Does the output of one class follow another's? Pearson's r against a null that knows the labels, and spill
between classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from beatmeter.evaluation.diagnostics.labels import right, single
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain
from beatmeter.evaluation.metrics import Estimate, group_index, holm, share
from beatmeter.evaluation.metrics.checks import Array, ratio
from beatmeter.schema import ClassPredictions, Finding

BATCH_NUMBERS = 4_000_000


def correlation(scores: Array) -> Array:
    """(class, class) Pearson's r between the outputs over items; 0 where an output never changes (scipy:
    pearsonr)."""
    z = _standard(scores)
    result: Array = z.T @ z
    return result


def worst_correlation(p: ClassPredictions) -> tuple[tuple[str, str], float]:
    """The pair of classes with the highest correlation, and its r; needs two classes and one item."""
    r = correlation(p.scores)
    i, j = max(combinations(range(len(p.classes)), 2), key=lambda pair: float(r[pair]))
    return (p.classes[i], p.classes[j]), float(r[i, j])


def _standard(scores: Array) -> Array:
    """Columns of mean 0 and length 1, or all 0 where constant."""
    centred = scores - scores.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(axis=0))
    varies = length > 1e-12 * np.sqrt(len(scores))
    result: Array = np.where(varies, centred, 0.0) / np.where(varies, length, 1.0)
    return result


def label_null(scores: Array, present: Array, permutations: int, seed: int = 0) -> Array:
    """(permutation, class, class) r when every output knows its own label and nothing else.

    The values of class j are shuffled among the items that have label j and among those that have not. That
    keeps how each output answers its label and how labels come together (two-meter items make outputs
    correlate rightly), and breaks all else. Entry [., i, j] has j shuffled and i in place.
    """
    n, c = scores.shape
    z = _standard(scores)
    random = np.random.default_rng(seed)
    out = np.empty((permutations, c, c))
    step = max(1, BATCH_NUMBERS // max(1, n))
    for j in range(c):
        base = np.argsort(present[:, j], kind="stable")
        for start in range(0, permutations, step):
            rows = min(step, permutations - start)
            shuffled = np.argsort(
                random.random((rows, n)) + present[:, j], axis=1
            )  # a random order within each stratum
            out[start : start + rows, :, j] = z[shuffled, j] @ z[base]
    return out


def _by_group(p: ClassPredictions) -> tuple[Array, Array]:
    """Scores averaged over the items of one group with the same labels, and these labels: what may be
    shuffled freely."""
    present = p.targets > 0
    labels = present @ (1 << np.arange(present.shape[1]))
    cell = np.unique(np.column_stack([group_index(p.groups), labels]), axis=0, return_inverse=True)[1].ravel()
    count = np.bincount(cell)
    sums = np.stack([np.bincount(cell, weights=p.scores[:, k]) for k in range(len(p.classes))], axis=1)
    first = np.zeros((len(count), present.shape[1]), dtype=bool)
    first[cell] = present
    return ratio(sums, count[:, None]), first


@dataclass(frozen=True)
class PairCorrelation:
    """Pearson's r of one pair of outputs, what the labels alone explain (mean of the null), the Holm-adjusted
    p-value of r being above that, and the verdict: "leakage", "explained" or "low"."""

    pair: tuple[str, str]
    r: float
    explained: float
    p: float
    verdict: str


def pair_correlations(p: ClassPredictions, limits: Limits = LIMITS, seed: int = 0) -> list[PairCorrelation]:
    """Every pair of classes, highest r first. The test runs on averages over groups, since items of a song
    are not independent."""
    r = correlation(p.scores)
    scores, present = _by_group(p)
    observed = correlation(scores)
    null = label_null(scores, present, limits.permutations, seed)
    pairs = list(combinations(range(len(p.classes)), 2))
    raw = [(1 + int((null[:, i, j] >= observed[i, j]).sum())) / (1 + limits.permutations) for i, j in pairs]
    rows = []
    for (i, j), adjusted in zip(pairs, holm(raw), strict=True):
        explained = float(null[:, i, j].mean())
        beyond = adjusted < limits.alpha and observed[i, j] - explained > limits.excess
        high = r[i, j] > limits.correlation
        verdict = "leakage" if high and beyond else "explained" if high else "low"
        rows.append(
            PairCorrelation((p.classes[i], p.classes[j]), float(r[i, j]), explained, adjusted, verdict)
        )
    return sorted(rows, key=lambda row: -row.r)


@dataclass(frozen=True)
class Spill:
    """How often items of class `of` alone, rightly answered, also raise class `to` above the active
    threshold."""

    of: str
    to: str
    share: Estimate
    verdict: str  # "leakage", "raised floor" (the class is up whatever the item) or "low"


def spills(p: ClassPredictions, limits: Limits = LIMITS) -> list[Spill]:
    """Every ordered pair of classes with at least `limits.fewest` items, highest share first."""
    clean = single(p) & right(p)
    active = (p.scores > limits.active).astype(np.float64)
    sources = [i for i in range(len(p.classes)) if (clean & (p.primary == i)).sum() >= limits.fewest]
    table = {
        (i, j): share(np.where(clean & (p.primary == i), active[:, j], np.nan), p.groups)
        for i in sources
        for j in range(len(p.classes))
        if i != j
    }
    rows = []
    for (i, j), estimate in table.items():
        others = [table[k, j].value for k in sources if k != j]
        raised = len(others) >= 2 and min(others) > limits.spill
        surely = estimate.low > limits.spill
        rows.append(
            Spill(
                p.classes[i],
                p.classes[j],
                estimate,
                "raised floor" if raised else "leakage" if surely else "low",
            )
        )
    return sorted(rows, key=lambda s: -s.share.value)


def leakage(p: ClassPredictions, limits: Limits = LIMITS, seed: int = 0) -> Finding:
    """Correlated outputs that the labels do not explain, and classes that rise with another on most of its
    items."""
    correlations, spilled = pair_correlations(p, limits, seed), spills(p, limits)
    leaks = "leakage" in {*(c.verdict for c in correlations), *(s.verdict for s in spilled)}
    raised = sorted({s.to for s in spilled if s.verdict == "raised floor"}, key=p.classes.index)
    values = plain(
        {
            "verdict": "leakage" if leaks else "raised floor" if raised else "none",
            "pairs": correlations,
            "matrix": correlation(p.scores),
            "spill": [s for s in spilled if s.share.value > 0],
            "raised": raised,
        }
    )
    text = ". ".join(leakage_sentences(values, limits)) + "."
    return Finding("leakage", "warning" if leaks or raised else "ok", text, values)


def leakage_sentences(values: Mapping[str, Any], limits: Limits = LIMITS) -> list[str]:
    """What the values of the finding `leakage` say in words, the gravest first; without full stops."""
    verdicts = {
        verdict: [row for row in values["pairs"] if row["verdict"] == verdict]
        for verdict in ("leakage", "explained")
    }
    spilling = [s for s in values["spill"] if s["verdict"] == "leakage"]
    sentences = [
        f"the scores of {' and '.join(row['pair'])} rise together (r = {row['r']:.2f}; the labels explain "
        f"{row['explained']:.2f}; p = {row['p']:.3f})"
        for row in verdicts["leakage"][:3]
    ]
    if spilling:
        sentences.append(
            "items of one class raise another: "
            + ", ".join(f"{s['of']} raises {s['to']} in {percent(s['share']['value'])}" for s in spilling[:3])
        )
    if values["raised"]:
        sentences.append(
            f"raised floor: {', '.join(values['raised'])} above {limits.active:g} whatever the item"
        )
    if verdicts["explained"]:
        sentences.append(
            "explained by the labels or by chance: "
            + ", ".join(f"{'-'.join(row['pair'])} r = {row['r']:.2f}" for row in verdicts["explained"][:3])
        )
    if not sentences:
        highest = values["pairs"][0]
        sentences.append(
            f"the highest correlation is r = {highest['r']:.2f} ({'-'.join(highest['pair'])}), below "
            f"{limits.correlation:g}"
        )
    return sentences
