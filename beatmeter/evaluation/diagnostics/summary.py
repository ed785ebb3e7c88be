"""The walk through the findings: selective? -> confused or polyrhythm? -> output leakage? -> thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beatmeter.evaluation.diagnostics.labels import several, single
from beatmeter.evaluation.diagnostics.leakage import leakage_sentences
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain
from beatmeter.evaluation.metrics import confidence_gap
from beatmeter.schema import ClassPredictions, Finding


@dataclass(frozen=True)
class Step:
    """One question of the walk with its answer in a word and in a sentence."""

    question: str
    answer: str
    because: str


def summarise(p: ClassPredictions, findings: Mapping[str, Finding], limits: Limits = LIMITS) -> Finding:
    """The walk over `findings` (by name), and one word that sums it up.

    The word is the first that applies: "chance" (answers are not surely better than guessing, so outputs mean
    nothing), "leakage", "raised floor", "confused" (single-meter items whose two highest scores compete),
    "polyrhythm" (competing scores are second meters), else how selective the gap is.
    """
    gap, leak = findings["gap"].values, findings["leakage"].values
    competing = _competing(p, findings.get("polyrhythm"), limits)
    steps = [
        Step(
            "selective?",
            str(gap["verdict"]),
            f"mean gap {gap['mean']:.2f}; {percent(gap['bands']['low'])} of the items below "
            f"{limits.low_gap:g}",
        ),
        competing,
        Step(
            "output leakage?",
            {"leakage": "yes", "raised floor": "raised floor"}.get(leak["verdict"], "no"),
            leakage_sentences(leak, limits)[0],
        ),
        _thresholds(findings.get("noise_floor"), findings.get("loss_floor")),
    ]
    guessing = guessing_warning(findings["performance"])
    verdict = str(gap["verdict"])
    if guessing:
        verdict = "chance"
    elif leak["verdict"] != "none":
        verdict = str(leak["verdict"])
    elif competing.answer in ("confused", "polyrhythm"):
        verdict = competing.answer
    warned = (
        verdict in ("chance", "leakage", "raised floor", "confused", "not selective")
        or steps[3].answer == "unusable"
    )
    text = f"{verdict}. {guessing}" + " ".join(f"{s.question} {s.answer}: {s.because}." for s in steps)
    return Finding(
        "summary",
        "warning" if warned else "ok",
        text,
        plain({"verdict": verdict, "guessing": guessing, "steps": steps}),
    )


def guessing_warning(performance: Finding) -> str:
    """A sentence when balanced accuracy is not surely above that of guessing among the classes that occur;
    else empty."""
    balanced, chance = performance.values["metrics"]["balanced_accuracy"], performance.values["chance"]
    if chance == 1 or balanced["low"] > chance:
        return ""
    interval = f"[{100 * balanced['low']:.0f}, {100 * balanced['high']:.0f}]"
    return (
        f"Balanced accuracy {percent(balanced['value'])} {interval} is not surely above the "
        f"{percent(chance)} of guessing: read no more into it. "
    )


def _competing(p: ClassPredictions, polyrhythm: Finding | None, limits: Limits) -> Step:
    """Whether items with a narrow gap are confused or carry two meters."""
    question = "confused or polyrhythm?"
    narrow = confidence_gap(p.scores) < limits.low_gap
    if not narrow.any():
        return Step(question, "neither", "no item has competing scores")
    both = (p.scores > limits.active).sum(axis=1) >= 2
    one, two = single(p), several(p)
    share_one = float((narrow & one).sum() / one.sum()) if one.any() else 0.0
    if polyrhythm is not None:
        heard = polyrhythm.values["verdict"] == "heard"
        share_two = float((narrow & two).sum() / two.sum())
        because = (
            f"{percent(share_one)} of single-meter items compete, {percent(share_two)} of those with several "
            "meters; "
            f"second meters are {polyrhythm.values['verdict']}"
        )
        if share_one > limits.co_occurring:
            return Step(question, "confused", because)
        return Step(question, "polyrhythm" if heard else "neither", because)
    paired = float((narrow & both).sum() / narrow.sum())
    share = float(narrow.mean())
    because = (
        f"{percent(share)} of the items compete, {percent(paired)} of these with both classes above "
        f"{limits.active:g}; "
        "no two-meter labels to check against"
    )
    if share <= limits.co_occurring:
        return Step(question, "few compete", because)
    return Step(question, "confused" if paired < 0.5 else "perhaps polyrhythm", because)


def _thresholds(floor: Finding | None, loss: Finding | None) -> Step:
    """Whether the noise floor leaves room for thresholds."""
    question = "thresholds?"
    if floor is None:
        return Step(question, "none", "no single-meter item is answered right")
    overall: Any = floor.values["overall"]["quantiles"]
    because = f"evaluation {overall['p95']['value']:.2f}, production {overall['p99']['value']:.2f}"
    if floor.values["reaching"]:
        because += f"; the floor of {', '.join(floor.values['reaching'])} reaches the decision threshold"
        if loss is not None and loss.level == "warning":
            because += ", as the loss makes it"
        return Step(question, "unusable", because)
    return Step(
        question, "usable", because + (" (not fitted on validation)" if floor.values["same_items"] else "")
    )
