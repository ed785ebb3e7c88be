"""One word per thing, and one idea per file: names that say nothing, phrases that were replaced, files that
grew."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "beatmeter").rglob("*.py"))
LONGEST = 400  # lines of a module

NAMES = {  # a name in the code -> what to call it
    "crew": "workers",
    "course": "history, early stopping",
}
IN_STORES = {"place": "backend", "Place": "Backend", "places": "backends"}
FILES = {"utils", "util", "common", "helpers", "helper", "misc", "lab"}
PHRASES = {  # in any text -> better
    r"\bcommonest\b": "most frequent",
    r"\bto the digit\b": "digit for digit",
    r"\b(no|without a?|without) network\b": "offline",
    r"\bwhat training has to beat\b": "the untrained baseline",
    r"\bcosts only itself\b": "the others still finish",
    r"\bis turned over\b": "say what the function does",
    r"\bNobody asked\b": "say what the function does",
}
QUOTES = {"tests/house/test_words.py", "CHANGELOG.md"}


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module gives, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_names_say_what_a_thing_is() -> None:
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {name}: write {better[name]}"
        for path in MODULES
        for better in ({**NAMES, **IN_STORES} if path.parent.name == "store" else NAMES,)
        for name, line in names_in(ast.parse(path.read_text(encoding="utf-8")))
        if name in better
    ]
    assert vague == []


def test_files_are_named_after_an_idea() -> None:
    assert [str(path) for path in MODULES if path.stem in FILES or path.parent.name in FILES] == []


def test_files_hold_one_idea() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}, "split by idea"


def test_replaced_phrases_stay_away() -> None:
    texts = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(
            path
            for folder in ("beatmeter", "docs", "tools", "benchmarks", "tests")
            for kind in ("*.py", "*.md", "*.html")
            for path in sorted((ROOT / folder).rglob(kind))
        ),
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {better}"
        for path in texts
        if path.relative_to(ROOT).as_posix() not in QUOTES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for phrase, better in PHRASES.items()
        if (match := re.search(phrase, line))
    ]
    assert found == []
