"""How each benchmark's number moved from commit to commit: every line of `results.jsonl`, drawn by part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import Comparison, Fact, Result, from_line
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beatmeter.evaluation.figures import style

COLUMNS = 2


@dataclass(frozen=True)
class Course:
    """One number over time: `values` by measurement, the `marks` below them (commit or, where it is not
    known, date), what it is (`unit`), and the `bound` that was promised."""

    title: str
    unit: str
    values: tuple[float, ...]
    marks: tuple[str, ...]
    bound: float | None


def courses(path: Path) -> dict[str, list[Course]]:
    """By part, what was measured twice or more: the speed of ours relative to its baseline, and single
    numbers. Measurements against another baseline than the newest are left out."""
    lines: dict[tuple[str, str], list[tuple[Result, Mapping[str, object]]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        result, rest = from_line(line)
        lines.setdefault((result.part, result.title), []).append((result, rest))
    found: dict[str, list[Course]] = {}
    for (part, title), measured in lines.items():
        newest, _ = measured[-1]
        numbers = [(number(result, newest), rest) for result, rest in measured]
        kept = [(value, rest) for value, rest in numbers if value is not None]
        if len(kept) < 2:
            continue
        marks = tuple(str(rest["commit"] or str(rest["time"])[:10]) for _, rest in kept)
        values = tuple(value for value, _ in kept)
        found.setdefault(part, []).append(Course(title, _unit(newest), values, marks, _bound(newest)))
    return found


def number(result: Result, newest: Result) -> float | None:
    """What a measurement says in one number that may be compared with the newest one's."""
    if isinstance(result, Comparison) and isinstance(newest, Comparison):
        names = {result.base, result.ours, newest.base, newest.ours}
        same = len(names) == 2 and result.base == newest.base
        return result.ratio(result.ours) if same else None
    if isinstance(result, Fact) and isinstance(newest, Fact) and result.unit == newest.unit:
        return result.value
    return None


def _unit(newest: Result) -> str:
    return f"x {newest.base}" if isinstance(newest, Comparison) else getattr(newest, "unit", "")


def _bound(newest: Result) -> float | None:
    if isinstance(newest, Comparison):
        return next((target.least for target in newest.targets if target.base == newest.base), None)
    return newest.bound if isinstance(newest, Fact) else None


@style.styled
def draw(part: Sequence[Course]) -> Figure:
    """One panel a course; the promised bound is a red line."""
    rows = math.ceil(len(part) / COLUMNS)
    figure, axes = style.blank(1.9 * rows, rows, COLUMNS, width=8.6)
    for course, panel in zip(part, axes, strict=False):
        _panel(panel, course)
    for panel in axes[len(part) :]:
        panel.set_axis_off()
    return figure


def _panel(axes: Axes, course: Course) -> None:
    at = np.arange(len(course.values))
    axes.plot(at, course.values, "o-", color=style.BLUE, markersize=3)
    axes.annotate(
        f"{course.values[-1]:.3g}",
        (float(at[-1]), course.values[-1]),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    highest = max(course.values)
    if course.bound is not None:
        axes.axhline(course.bound, color=style.RED, linewidth=0.8)
        highest = max(highest, course.bound)
    axes.set_ylim(0, 1.15 * highest)
    axes.set_xlim(-0.3, len(at) - 0.4)
    axes.set_xticks(at, course.marks, fontsize=7)
    axes.set_ylabel(course.unit[:24], fontsize=8)
    axes.set_title(course.title if len(course.title) < 62 else f"{course.title[:60]}...", fontsize=8)
