"""What people see of an evaluation: text for the terminal, JSON for programs, one HTML page for the browser."""

from __future__ import annotations

from beatmeter.evaluation.report.evaluation import Evaluation, findings_json
from beatmeter.evaluation.report.text import evaluation_text, findings_text

__all__ = ["Evaluation", "evaluation_text", "findings_json", "findings_text"]
