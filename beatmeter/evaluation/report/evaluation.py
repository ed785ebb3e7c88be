"""One evaluation: predictions, every metric with intervals, and the findings, ready to be shown or saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from beatmeter.evaluation.diagnostics import LIMITS, Limits, diagnose, plain
from beatmeter.evaluation.metrics import Measures, SourceRow, by_source, measure
from beatmeter.schema import ClassPredictions, Finding


@dataclass(frozen=True)
class Evaluation:
    """Predictions with what was measured and found; `validation` is what thresholds were fitted on."""

    predictions: ClassPredictions
    measures: Measures
    findings: tuple[Finding, ...]
    sources: tuple[SourceRow, ...] = ()
    validation: ClassPredictions | None = None

    @classmethod
    def of(
        cls,
        predictions: ClassPredictions,
        validation: ClassPredictions | None = None,
        limits: Limits = LIMITS,
        seed: int = 0,
    ) -> Evaluation:
        """Measure and diagnose. Raises EvaluationError without labelled items."""
        sources = by_source(predictions, validation if validation is not predictions else None)
        return cls(
            predictions,
            measure(predictions, limits.replicates, seed),
            tuple(diagnose(predictions, validation, limits, seed)),
            tuple(sources) if len(sources) > 1 else (),
            validation,
        )

    @property
    def verdict(self) -> str:
        """The word of the summary."""
        return str(next(f for f in self.findings if f.name == "summary").values["verdict"])

    def finding(self, name: str) -> Finding | None:
        """The finding of this name, if there is one."""
        return next((f for f in self.findings if f.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of all of it, without the predictions themselves."""
        p = self.predictions
        return {
            "split": p.split,
            "classes": list(p.classes),
            "items": len(p),
            "groups": len(set(p.groups)),
            "unlabelled": int((p.primary < 0).sum()),
            "verdict": self.verdict,
            "metrics": plain(self.measures.overall),
            "per_class": plain(self.measures.classes),
            "confusion": plain(self.measures.confusion),
            "pairs": plain(self.measures.pairs),
            "sources": plain(self.sources),
            "findings": findings_json(self.findings),
        }


def findings_json(findings: tuple[Finding, ...] | list[Finding]) -> list[dict[str, Any]]:
    """Findings as plain JSON values."""
    return [{"name": f.name, "level": f.level, "text": f.text, "values": plain(f.values)} for f in findings]
