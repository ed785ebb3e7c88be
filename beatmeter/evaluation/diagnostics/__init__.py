"""Diagnostics of meter predictions: is the model selective, does it hear two meters or leak, can its scores
be trusted?

`diagnose` gives findings from ClassPredictions alone, for any regime and for predictions made elsewhere.
`docs/diagnostics.md` says what each of them means.
"""

from __future__ import annotations

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.diagnostics.answers import calibration, performance, polyrhythm, sources
from beatmeter.evaluation.diagnostics.epochs import layer_weights, layers, series, training, trend
from beatmeter.evaluation.diagnostics.leakage import (
    PairCorrelation,
    Spill,
    correlation,
    label_null,
    leakage,
    pair_correlations,
    spills,
    worst_correlation,
)
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, plain
from beatmeter.evaluation.diagnostics.loss_floor import floor_from_meta, floor_warning, negative_floor
from beatmeter.evaluation.diagnostics.noise_floor import (
    EVALUATION,
    PRODUCTION,
    Detection,
    Floor,
    NoiseFloor,
    detect,
    fit_noise_floor,
    noise_floor,
    passes,
)
from beatmeter.evaluation.diagnostics.selectivity import (
    QUADRANTS,
    Quadrants,
    co_occurrence,
    entropy,
    fit_quadrants,
    gap,
)
from beatmeter.evaluation.diagnostics.summary import guessing_warning, summarise
from beatmeter.evaluation.metrics import require_labels
from beatmeter.schema import ClassPredictions, Finding

__all__ = [
    "EVALUATION",
    "LIMITS",
    "PRODUCTION",
    "QUADRANTS",
    "Detection",
    "Floor",
    "Limits",
    "NoiseFloor",
    "PairCorrelation",
    "Quadrants",
    "Spill",
    "calibration",
    "co_occurrence",
    "correlation",
    "detect",
    "diagnose",
    "entropy",
    "fit_noise_floor",
    "fit_quadrants",
    "floor_from_meta",
    "floor_warning",
    "gap",
    "guessing_warning",
    "label_null",
    "layer_weights",
    "layers",
    "leakage",
    "negative_floor",
    "noise_floor",
    "pair_correlations",
    "passes",
    "performance",
    "plain",
    "polyrhythm",
    "series",
    "sources",
    "spills",
    "summarise",
    "training",
    "trend",
    "worst_correlation",
]


def diagnose(
    predictions: ClassPredictions,
    validation: ClassPredictions | None = None,
    limits: Limits = LIMITS,
    seed: int = 0,
) -> list[Finding]:
    """All findings, the summary first.

    Thresholds (noise floor, quadrants) and the source baseline are fitted on `validation` when it is given,
    and on the predictions themselves, saying so, when not. `seed` is that of the bootstrap and of the
    permutation test. Raises EvaluationError without labelled items, with a single class, or when validation
    has other classes.
    """
    require_labels(predictions)
    p = predictions
    if len(p.classes) < 2:
        raise EvaluationError(f"diagnostics compare classes, there is only {p.classes[0]!r}")
    if validation is not None and validation.classes != p.classes:
        raise EvaluationError(
            f"validation has the classes {', '.join(validation.classes)}, the predictions "
            f"{', '.join(p.classes)}"
        )
    fitting = validation if validation is not None and (validation.primary >= 0).any() else None
    found: list[Finding | None] = [
        performance(p, limits, seed),
        co_occurrence(p, limits),
        gap(p, limits),
        entropy(p, fit_quadrants(fitting, limits)),
        leakage(p, limits, seed),
        _floor(p, fitting, limits, seed),
        polyrhythm(p, limits, seed),
        calibration(p, limits, seed),
        sources(p, fitting if fitting is not None and fitting is not p else None),
        floor_from_meta(p.classes, p.meta, limits),
    ]
    findings = [f for f in found if f is not None]
    return [summarise(p, {f.name: f for f in findings}, limits), *findings]


def _floor(
    p: ClassPredictions, validation: ClassPredictions | None, limits: Limits, seed: int
) -> Finding | None:
    """The noise floor, or None where no single-meter item is answered right."""
    fitting = validation if validation is not None else p
    try:
        return noise_floor(p, fit_noise_floor(fitting, limits.replicates, seed), fitting is p, limits)
    except EvaluationError:
        return None
