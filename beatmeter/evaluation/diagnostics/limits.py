"""The thresholds of the diagnostics, in one place, and the plain JSON values that findings carry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from beatmeter.evaluation.metrics import Estimate


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where a number becomes a note or a warning. All are on sigmoid outputs, from 0 to 1."""

    active: float = 0.4  # a class counts as active above this; two active classes co-occur
    positive: float = 0.5  # a class is predicted above this
    co_occurring: float = 0.25  # warn when more single-meter items than this have two active classes
    low_gap: float = 0.3  # below: the two highest scores compete
    high_gap: float = 0.5  # above: one class stands out
    high_entropy: float = 0.5  # of the normalised binary entropy, where no threshold can be fitted
    correlation: float = 0.3  # Pearson's r between two outputs that is looked at
    excess: float = 0.1  # r above what the labels explain that is called leakage
    alpha: float = 0.05  # of the permutation test, after Holm
    permutations: int = 1000  # of that test
    replicates: int = 2000  # of the bootstrap over groups
    spill: float = (
        0.5  # leakage when the share of a class's items that also raise another class is surely above this
    )
    heard: float = 0.75  # area under the curve of the second activation, two-meter against single-meter items
    weak_recall: float = 0.5  # warn when the recall of a class is surely below
    ece: float = 0.1  # warn above; note above half of it
    fewest: int = 5  # items of a class below which nothing is concluded about it
    errors: int = 10  # right and wrong validation answers needed to fit a quadrant threshold
    youden: float = (
        0.3  # how well a fitted quadrant threshold must tell right from wrong; else the fixed one stands
    )


LIMITS = Limits()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays become lists, dataclasses objects, nan and infinities null, names
    strings."""
    if isinstance(value, Estimate):
        return {
            "value": plain(value.value),
            "low": plain(value.low),
            "high": plain(value.high),
            "n": value.n,
            "method": value.method,
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def percent(value: float) -> str:
    """0.123 as "12%", or "1.2%" below a tenth."""
    return f"{100 * value:.0f}%" if value >= 0.0995 or value == 0 else f"{100 * value:.1f}%"


def shown(estimate: Estimate) -> str:
    """An estimate of a share as "84% [82, 87]"."""
    return f"{percent(estimate.value)} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
