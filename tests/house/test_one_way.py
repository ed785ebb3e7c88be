"""There is one way from a run to an answer: one reader of checkpoints, one decoder of outputs."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "beatmeter"
WORDS = ("restore", "checkpoints", "RunScorer", "decode", "sigmoid", "expit", "log_softmax")


@cache
def calls() -> set[tuple[str, str, str]]:
    """Every call in the package: module, word before the dot (none where there is no dot), name."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text, module = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        if not any(word in text for word in WORDS):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                found.add((module, getattr(owner, "attr", getattr(owner, "id", "")), node.func.attr))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add((module, "", node.func.id))
    return found


def callers(name: str, of: str = "") -> set[str]:
    """The modules that call `name`, or `of.name` where `of` is the last word before the dot."""
    return {module for module, owner, called in calls() if called == name and of in ("", owner)}


def test_predict_evaluate_timeline_and_robustness_share_one_loader() -> None:
    assert callers("restore") == {
        "learning/starting.py",  # where another run ended
        "learning/training.py",
        "serving/curves.py",
        "serving/scoring.py",
    }
    assert callers("read", "checkpoints") == {
        "learning/restoring.py",  # the loader
        "learning/loop.py",  # resuming, and going back to the best epoch
        "learning/together.py",
        "learning/pretraining/loop.py",  # of the embedded backbone, which is no run of a task
    }
    assert callers("RunScorer") == {"serving/predictor.py", "serving/presence.py", "serving/scoring.py"}


def test_outputs_become_answers_by_the_task_alone() -> None:
    assert callers("decode", "task") == {
        "learning/loop.py",  # figures of an epoch
        "learning/model.py",
        "serving/curves.py",
        "serving/scoring.py",
    }


@pytest.mark.parametrize("folder", ["serving", "cli", "experiments", "learning"])
def test_no_one_else_makes_probabilities_of_outputs(folder: str) -> None:
    graphs = {"serving/onnx/graphs.py", "serving/onnx/curves.py"}  # every export is compared with the decoder
    for name in ("sigmoid", "expit", "log_softmax"):
        assert not {path for path in callers(name) - graphs if path.startswith(folder)}, name
