"""Pages from templates: every value is escaped, a missing one is an error, and all that a page needs is in
the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from beatmeter.runtime.templates import render

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "beatmeter.evaluation.report"


def test_values_are_escaped_in_texts_and_attributes() -> None:
    text = render(PACKAGE, "page.html", title="</title><script>", lead="a & b", version='"><script>')
    assert "<script>" not in text
    assert "a &amp; b" in text


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'lead' is undefined"):
        render(PACKAGE, "page.html", title="", version="")


def test_every_file_that_is_no_module_is_packed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "beatmeter"
    ]
    packed = {path for pattern in patterns for path in (ROOT / "beatmeter").glob(pattern)}
    others = {p for p in (ROOT / "beatmeter").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others - packed == set()
