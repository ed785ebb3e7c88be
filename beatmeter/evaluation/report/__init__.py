"""What people see of an evaluation: text for the terminal, JSON for programs, one HTML page for the
browser."""

from __future__ import annotations

from beatmeter.evaluation.report.assessment import Assessment, assess, evaluation_of
from beatmeter.evaluation.report.assessment_text import assessment_text
from beatmeter.evaluation.report.evaluation import Evaluation, findings_json
from beatmeter.evaluation.report.text import evaluation_text, findings_text


def text_of(evaluation: Evaluation | Assessment) -> str:
    """An evaluation of any family for the terminal."""
    return evaluation_text(evaluation) if isinstance(evaluation, Evaluation) else assessment_text(evaluation)


__all__ = [
    "Assessment",
    "Evaluation",
    "assess",
    "assessment_text",
    "evaluation_of",
    "evaluation_text",
    "findings_json",
    "findings_text",
    "text_of",
]
