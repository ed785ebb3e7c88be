"""Does one class stand out? Co-occurrence of active classes, the gap between the two highest, and entropy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from beatmeter.evaluation.diagnostics.labels import right, several, single
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain, shown
from beatmeter.evaluation.metrics import binary_entropy, confidence_gap, share
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions, Finding


def co_occurrence(p: ClassPredictions, limits: Limits = LIMITS) -> Finding:
    """Share of items with two or more classes above `limits.active`, apart for single-meter and two-meter
    items, per predicted class, and the pairs that are active together most often."""
    active = p.scores > limits.active
    two = active.sum(axis=1) >= 2
    answer = p.scores.argmax(axis=1)
    counts = {
        (i, j): int((active[:, i] & active[:, j]).sum()) for i, j in combinations(range(len(p.classes)), 2)
    }
    pairs = [
        ((p.classes[i], p.classes[j]), n)
        for (i, j), n in sorted(counts.items(), key=lambda item: -item[1])
        if n
    ]
    shares = {
        name: share(np.where(mask, two.astype(np.float64), np.nan), p.groups)
        for name, mask in (
            ("all", np.ones(len(p), dtype=bool)),
            ("single_meter", single(p)),
            ("several_meters", several(p)),
        )
    }
    of_single = shares["single_meter"]
    loud = of_single.n > 0 and of_single.value > limits.co_occurring
    most = ", ".join(f"{'+'.join(pair)} ({n})" for pair, n in pairs[:3])
    text = f"two or more classes above {limits.active:g} in {shown(shares['all'])} of the items"
    if of_single.n and shares["several_meters"].n:
        text += (
            f": {percent(of_single.value)} of the single-meter ones, "
            f"{percent(shares['several_meters'].value)} of those with several meters"
        )
    text += f". Most common pairs: {most}." if pairs else "."
    return Finding(
        "co_occurrence",
        "warning" if loud else "ok",
        text,
        plain(
            {
                "threshold": limits.active,
                "share": shares,
                "pairs": [{"pair": pair, "items": n} for pair, n in pairs],
                "per_predicted_class": {
                    c: share(np.where(answer == k, two.astype(np.float64), np.nan), p.groups)
                    for k, c in enumerate(p.classes)
                    if (answer == k).any()
                },
            }
        ),
    )


def _moments(values: Array) -> dict[str, int | float]:
    return {
        "items": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "std": float(values.std()),
    }


def gap(p: ClassPredictions, limits: Limits = LIMITS) -> Finding:
    """The gap P1 - P2 between the two highest scores: mean, median and standard deviation, over all items and
    per predicted class, and the shares in the bands that `limits.low_gap` and `limits.high_gap` cut."""
    values = confidence_gap(p.scores)
    answer = p.scores.argmax(axis=1)
    bands = {
        "low": float((values < limits.low_gap).mean()),
        "middle": float(((values >= limits.low_gap) & (values <= limits.high_gap)).mean()),
        "high": float((values > limits.high_gap).mean()),
    }
    mean = float(values.mean())
    verdict = (
        "selective"
        if mean > limits.high_gap
        else "partly selective"
        if mean >= limits.low_gap
        else "not selective"
    )
    per_class = {c: _moments(values[answer == k]) for k, c in enumerate(p.classes) if (answer == k).any()}
    text = (
        f"{verdict}: gap {mean:.2f} in the mean, {np.median(values):.2f} in the median, standard deviation "
        f"{values.std():.2f}; "
        f"above {limits.high_gap:g} in {percent(bands['high'])} of the items, below {limits.low_gap:g} in "
        f"{percent(bands['low'])}."
    )
    narrow = [c for c, m in per_class.items() if m["items"] >= limits.fewest and m["mean"] < limits.low_gap]
    if narrow and verdict != "not selective":
        text += f" Narrow where the answer is {', '.join(narrow)}."
    return Finding(
        "gap",
        "warning" if verdict == "not selective" else "ok" if verdict == "selective" else "note",
        text,
        plain(
            {
                "verdict": verdict,
                **_moments(values),
                "bands": bands,
                "edges": [limits.low_gap, limits.high_gap],
                "per_predicted_class": per_class,
            }
        ),
    )


@dataclass(frozen=True)
class Quadrants:
    """Thresholds that cut the plane of gap and entropy in four, and which of the two were fitted."""

    gap: float
    entropy: float
    fitted: tuple[str, ...] = ()

    def of(self, p: ClassPredictions) -> Array:
        """(item,) 0 clear (wide gap, low entropy), 1 dominant (wide, high), 2 paired (narrow, low), 3 diffuse
        (narrow, high)."""
        narrow, high = confidence_gap(p.scores) < self.gap, binary_entropy(p.scores) > self.entropy
        result: Array = 2 * narrow.astype(np.int64) + high
        return result


QUADRANTS = ("clear", "dominant", "paired", "diffuse")


def fit_quadrants(validation: ClassPredictions | None, limits: Limits = LIMITS) -> Quadrants:
    """Thresholds where validation answers are best told right from wrong: the gap and the entropy of the
    largest difference between the shares of right and of wrong answers on the good side (Youden's J). Fixed
    ones without validation, with fewer than `limits.errors` right or wrong answers, or where the fitted one
    tells them apart badly. Never medians: they put half the items in "low" whatever the model does."""
    if validation is not None:
        labelled = validation.primary >= 0
        good = right(validation)[labelled]
        if min(good.sum(), (~good).sum()) >= limits.errors:
            gap_at, by_gap = _youden(confidence_gap(validation.scores)[labelled], good)
            entropy_at, by_entropy = _youden(-binary_entropy(validation.scores)[labelled], good)
            fitted = {
                name: at
                for name, at, j in (("gap", gap_at, by_gap), ("entropy", -entropy_at, by_entropy))
                if j >= limits.youden
            }
            return Quadrants(
                fitted.get("gap", limits.low_gap), fitted.get("entropy", limits.high_entropy), tuple(fitted)
            )
    return Quadrants(limits.low_gap, limits.high_entropy)


def _youden(values: Array, good: Array) -> tuple[float, float]:
    """The threshold t for which J = share(values >= t | good) - share(values >= t | not good) is largest,
    half-way to the value below, and J."""
    order = np.argsort(-values, kind="stable")
    v, g = values[order], good[order]
    ends = np.flatnonzero(np.diff(v, append=-np.inf))
    j = g.cumsum()[ends] / g.sum() - (~g).cumsum()[ends] / (~g).sum()
    best = int(ends[j.argmax()])
    return float(v[best] if best + 1 == len(v) else (v[best] + v[best + 1]) / 2), float(j.max())


def entropy(p: ClassPredictions, quadrants: Quadrants) -> Finding:
    """Normalised binary entropy, mean over classes of H(p) / log 2, and the four quadrants of gap and entropy
    with the accuracy in each."""
    values = binary_entropy(p.scores)
    where = quadrants.of(p)
    outcome = np.where(p.primary >= 0, right(p).astype(np.float64), np.nan)
    cells = {
        name: {
            "share": float((where == k).mean()),
            "accuracy": share(np.where(where == k, outcome, np.nan), p.groups),
            "several_meters": int((several(p) & (where == k)).sum()),
        }
        for k, name in enumerate(QUADRANTS)
    }
    shares = [float((where == k).mean()) for k in range(4)]
    origin = {
        name: "fitted on validation" if name in quadrants.fitted else "fixed" for name in ("gap", "entropy")
    }
    text = (
        f"entropy {values.mean():.2f} in the mean, {np.median(values):.2f} in the median. "
        f"{percent(shares[0])} of the items are clear, "
        f"{percent(shares[1])} dominant over a diffuse rest, {percent(shares[2])} paired (narrow gap, low "
        f"entropy), {percent(shares[3])} diffuse "
        f"(thresholds: gap {quadrants.gap:.2f}, {origin['gap']}; entropy {quadrants.entropy:.2f}, "
        f"{origin['entropy']})."
    )
    return Finding(
        "entropy",
        "warning" if shares[3] > 0.5 else "ok",
        text,
        plain(
            {
                **_moments(values),
                "thresholds": {
                    "gap": quadrants.gap,
                    "entropy": quadrants.entropy,
                    "fitted": quadrants.fitted,
                },
                "quadrants": cells,
            }
        ),
    )
