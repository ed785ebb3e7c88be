"""Every figure of a run's report with its caption, and the same figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beatmeter.errors import EvaluationError
from beatmeter.evaluation import figures as draw
from beatmeter.evaluation.diagnostics import fit_noise_floor, fit_quadrants, layers, pair_correlations
from beatmeter.evaluation.report.page import Drawn
from beatmeter.evaluation.report.subject import Subject
from beatmeter.runtime.atomic import write_bytes, write_text
from beatmeter.runtime.paths import StrPath, as_path


def run_figures(s: Subject, seed: int = 0) -> dict[str, list[Drawn]]:
    """Every figure of the report, by section."""
    e, p = s.evaluation, s.evaluation.predictions
    quadrants = fit_quadrants(e.validation)
    answers = [
        Drawn(
            "confusion",
            draw.confusion(p.classes, e.measures.confusion),
            "Confusion matrix",
            "Rows are labels, columns answers. Blue is right, red is wrong.",
        ),
        Drawn(
            "classes",
            draw.per_class(e.measures.classes),
            "Recall and precision",
            "Of the items of a class, and of its answers, how many are right; 95% intervals.",
        ),
    ]
    sure = [
        Drawn(
            "reliability",
            draw.answer_reliability(p),
            "Reliability of the answer",
            "On the dashed line a score of 80% is right in 80%. Grey: how many items.",
        ),
        Drawn(
            "selective",
            draw.selective(p),
            "Accuracy when only sure answers count",
            "Leaving out the least sure items, from right to left; 95% band.",
        ),
        Drawn(
            "class-reliability",
            draw.class_reliability(p),
            "Reliability of every class",
            "The score of each sigmoid against how often the class is there.",
        ),
    ]
    behaviour = [
        Drawn(
            "plane",
            draw.plane(p, quadrants),
            "Gap and entropy",
            "Right: one class stands out. Low: sure of every class. The dashed lines cut the quadrants.",
        ),
        Drawn(
            "correlations",
            draw.correlations(p.classes, pair_correlations(p, seed=seed)),
            "Correlation of outputs",
            "Red: two classes rise together. Framed: and the labels do not explain it.",
        ),
    ]
    try:
        floor = fit_noise_floor(e.validation or p, seed=seed)
        thresholds = (floor.thresholds(0.95), floor.thresholds(0.99))
        where = (
            f"thresholds from the split '{floor.split}'"
            if e.validation is not None
            else "thresholds from these same items"
        )
        behaviour.append(
            Drawn(
                "noise-floor",
                draw.noise_floor(p, *thresholds),
                "Noise floor",
                f"The second highest score of every item, by its class; {where}.",
            )
        )
    except EvaluationError:
        pass  # nothing is answered right: the finding says so
    trained = []
    if any("val" in line for line in s.history):
        trained.append(
            Drawn(
                "training",
                draw.training(s.history, s.kept),
                "Training",
                "Every epoch; the grey bar is the one that was kept.",
            )
        )
    if layers(s.history) is not None:
        trained.append(
            Drawn(
                "layers",
                draw.layers(s.history),
                "Layer weights",
                "Which layers the head has come to read, and how it got there.",
            )
        )
    found = {"answers": answers, "sure": sure, "behaviour": behaviour, "training": trained}
    if s.calibration is not None:
        calibrated = s.calibration.apply(p)
        found["sure"].insert(
            1,
            Drawn(
                "reliability-calibrated",
                draw.answer_reliability(calibrated),
                "After calibration",
                "The same items with the run's calibration.",
            ),
        )
    return found


def write_figures(drawn: Sequence[Drawn], folder: StrPath) -> list[Path]:
    """Every figure as PNG and SVG in the light palette."""
    folder, paths = as_path(folder), []
    for d in drawn:
        write_bytes(folder / f"{d.name}.png", draw.to_png(d.figure))
        write_text(folder / f"{d.name}.svg", draw.to_svg(d.figure, d.name))
        paths += [folder / f"{d.name}.png", folder / f"{d.name}.svg"]
    return paths
