"""Calibrated probabilities, thresholds and abstention, fitted on validation and kept as JSON beside a run."""

from __future__ import annotations

from beatmeter.evaluation.calibration.calibration import (
    FEWEST,
    SURE,
    THRESHOLDS,
    WITNESSES,
    Calibration,
    best_f1,
)
from beatmeter.evaluation.calibration.folds import fold_of, out_of_fold
from beatmeter.evaluation.calibration.maps import (
    KINDS,
    ScoreMap,
    apply_maps,
    fit_isotonic,
    fit_maps,
    fit_platt,
    fit_temperature,
    logit,
)
from beatmeter.evaluation.calibration.pairs import Pairs
from beatmeter.evaluation.calibration.presence import Presence
from beatmeter.evaluation.calibration.selective import SelectiveRow, selective_curve, selective_table

__all__ = [
    "FEWEST",
    "KINDS",
    "SURE",
    "THRESHOLDS",
    "WITNESSES",
    "Calibration",
    "Pairs",
    "Presence",
    "ScoreMap",
    "SelectiveRow",
    "apply_maps",
    "best_f1",
    "fit_isotonic",
    "fit_maps",
    "fit_platt",
    "fit_temperature",
    "fold_of",
    "logit",
    "out_of_fold",
    "selective_curve",
    "selective_table",
]
