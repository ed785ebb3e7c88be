"""There is one way from a run to an answer: one reader of checkpoints, one decoder of outputs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "beatmeter"


def callers(name: str, of: str = "") -> set[str]:
    """The modules that call `name`, or `of.name` where `of` is the last word before the dot."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr == name:
                owner = called.value
                last = getattr(owner, "attr", getattr(owner, "id", ""))
                if not of or last == of:
                    found.add(path.relative_to(PACKAGE).as_posix())
            elif isinstance(called, ast.Name) and called.id == name and not of:
                found.add(path.relative_to(PACKAGE).as_posix())
    return found


def test_predict_evaluate_timeline_and_robustness_share_one_loader() -> None:
    assert callers("restore") == {"learning/training.py", "serving/predictor.py"}
    assert callers("read", "checkpoints") == {
        "learning/restoring.py",  # the loader
        "learning/loop.py",  # resuming, and going back to the best epoch
        "learning/stacked.py",
        "learning/pretraining/loop.py",  # of the embedded backbone, which is no run of a task
    }
    assert callers("RunScorer") == {"serving/predictor.py", "serving/presence.py"}


def test_outputs_become_answers_by_the_task_alone() -> None:
    assert callers("decode", "task") == {"learning/loop.py", "serving/predictor.py"}


@pytest.mark.parametrize("folder", ["serving", "cli", "experiments", "learning"])
def test_no_one_else_makes_probabilities_of_outputs(folder: str) -> None:
    for name in ("sigmoid", "expit", "log_softmax"):
        assert not {path for path in callers(name) if path.startswith(folder)}, name
