"""How good the answers are, whether the source of a clip gives them away, how honest the scores are, and
second meters."""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.diagnostics.labels import ranked, several, single
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain, shown
from beatmeter.evaluation.metrics import (
    METRICS,
    Estimate,
    by_source,
    ece_per_class,
    estimate,
    group_bootstrap,
    occurring,
    per_class,
    primary_ece,
    roc_auc,
)
from beatmeter.evaluation.metrics.primary import confusion_matrix, correct
from beatmeter.runtime.display import count
from beatmeter.schema import ClassPredictions, Finding


def performance(p: ClassPredictions, limits: Limits = LIMITS, seed: int = 0) -> Finding:
    """Accuracy by argmax, balanced, restricted to the classes that occur, mAP and macro-F1, each with its
    interval; weak classes and the most frequent confusions."""
    names = ("accuracy", "accuracy_restricted", "balanced_accuracy", "map", "macro_f1")
    found = {name: estimate(METRICS[name], p, limits.replicates, seed) for name in names}
    rows = per_class(p)
    confusion = confusion_matrix(p.scores, p.primary).astype(int)
    wrong = sorted(
        (
            (int(confusion[i, j]), p.classes[i], p.classes[j])
            for i in range(len(p.classes))
            for j in range(len(p.classes))
            if i != j and confusion[i, j]
        ),
        key=lambda cell: -cell[0],
    )
    weak = [r for r in rows if r.items >= limits.fewest and r.recall.high < limits.weak_recall]
    text = (
        f"accuracy {shown(found['accuracy'])}, balanced {shown(found['balanced_accuracy'])}, mAP "
        f"{found['map'].value:.2f}, "
        f"macro-F1 {found['macro_f1'].value:.2f} on {count(found['accuracy'].n, 'item')}."
    )
    if weak:
        text += (
            f" Recall surely below {percent(limits.weak_recall)}: "
            f"{', '.join(f'{r.name} ({shown(r.recall)})' for r in weak)}."
        )
    if wrong:
        text += f" Most frequent errors: {', '.join(f'{a} heard as {b} ({n})' for n, a, b in wrong[:3])}."
    silent = [
        c for c, occurs in zip(p.classes, occurring(p.primary, len(p.classes)), strict=True) if not occurs
    ]
    if silent:
        text += f" Nothing is known of {', '.join(silent)}: not in these labels."
    return Finding(
        "performance",
        "warning" if weak else "ok",
        text,
        plain(
            {
                "metrics": found,
                "per_class": rows,
                "confusion": confusion,
                "not_occurring": silent,
                "chance": 1 / (len(p.classes) - len(silent)),
            }
        ),
    )


def sources(p: ClassPredictions, reference: ClassPredictions | None) -> Finding | None:
    """Accuracy within each source beside what the source alone would answer; None with fewer than two
    sources."""
    rows = by_source(p, reference)
    if len(rows) < 2:
        return None
    total = sum(r.items for r in rows)
    alone = sum(r.source_only * r.items for r in rows) / total
    model = float(np.nanmean(correct(p.scores, p.primary)))
    beaten = [r for r in rows if r.items >= 10 and r.accuracy.high < r.source_only]
    parts = ", ".join(f"{r.source or '(none)'} {percent(r.accuracy.value)} of {r.items}" for r in rows[:5])
    text = (
        f"knowing only the source answers {percent(alone)} right, the model {percent(model)}. Within "
        f"sources: {parts}."
    )
    if beaten:
        text += f" Surely below its own source baseline in: {', '.join(r.source for r in beaten)}."
    return Finding(
        "sources",
        "warning" if beaten or model <= alone else "ok",
        text,
        plain({"source_only": alone, "accuracy": model, "sources": rows}),
    )


def calibration(p: ClassPredictions, limits: Limits = LIMITS, seed: int = 0) -> Finding:
    """Expected calibration error of the answer and of every sigmoid, and which way the answer errs."""
    answer = group_bootstrap(lambda w: primary_ece(p.scores, p.primary, w), p.groups, limits.replicates, seed)
    per_class_ece = ece_per_class(p.scores, p.targets)
    labelled = p.primary >= 0
    surplus = float(p.scores.max(axis=1)[labelled].mean() - np.nanmean(correct(p.scores, p.primary)))
    word = (
        "over-confident"
        if surplus > limits.ece / 2
        else "under-confident"
        if surplus < -limits.ece / 2
        else "neither over- nor under-confident"
    )
    text = f"calibration error of the answer {answer}, {word} (mean score minus accuracy {surplus:+.2f})."
    bad = [c for c, e in zip(p.classes, per_class_ece, strict=True) if e > limits.ece]
    if bad:
        text += f" Sigmoids off by more than {limits.ece:g}: {', '.join(bad)}."
    return Finding(
        "reliability",
        "warning" if answer.value > limits.ece else "note" if answer.value > limits.ece / 2 or bad else "ok",
        text + (" `beatmeter calibrate` mends this." if answer.value > limits.ece / 2 else ""),
        plain(
            {
                "primary_ece": answer,
                "surplus": surplus,
                "per_class_ece": dict(zip(p.classes, per_class_ece.tolist(), strict=True)),
            }
        ),
    )


def polyrhythm(p: ClassPredictions, limits: Limits = LIMITS, seed: int = 0) -> Finding | None:
    """Whether the second activation tells items with several meters from single-meter ones (area under the
    ROC curve), and how often both meters are on top; None without items of both kinds."""
    two, one = several(p), single(p)
    if not two.any() or not one.any():
        return None
    kept = p.take(two | one)
    second, outcome = ranked(kept)[1][:, 1], several(kept)
    area: Estimate = group_bootstrap(
        lambda w: roc_auc(second, outcome, w), kept.groups, limits.replicates, seed
    )
    both = estimate(METRICS["pair_recall"], p)
    heard = area.value >= limits.heard
    verdict = "heard" if heard else "not heard"
    text = (
        f"second meters are {verdict}: the second activation tells {count(int(two.sum()), 'item')} with "
        "several meters from "
        f"single-meter ones with area {area.value:.2f} [{area.low:.2f}, {area.high:.2f}]"
    )
    text += f"; both meters are the two highest in {shown(both)} of the two-meter items." if both.n else "."
    return Finding(
        "polyrhythm",
        "ok" if heard else "note",
        text,
        plain({"verdict": verdict, "area": area, "pair_recall": both, "items": int(two.sum())}),
    )
