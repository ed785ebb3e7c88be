"""Figures as matplotlib objects, for reports, papers and notebooks:
`figures.confusion(...).savefig("confusion.pdf")`."""

from __future__ import annotations

from beatmeter.evaluation.figures import comparison
from beatmeter.evaluation.figures.behaviour import correlations, noise_floor, plane
from beatmeter.evaluation.figures.history import layers, timeline, training
from beatmeter.evaluation.figures.quality import (
    answer_reliability,
    class_reliability,
    confusion,
    per_class,
    selective,
)
from beatmeter.evaluation.figures.style import PALETTE, to_inline, to_png, to_svg
from beatmeter.evaluation.figures.values import values

__all__ = [
    "PALETTE",
    "answer_reliability",
    "class_reliability",
    "comparison",
    "confusion",
    "correlations",
    "layers",
    "noise_floor",
    "per_class",
    "plane",
    "selective",
    "timeline",
    "to_inline",
    "to_png",
    "to_svg",
    "training",
    "values",
]
