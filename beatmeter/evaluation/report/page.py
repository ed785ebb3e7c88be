"""What a page is made of, as values: figures, cards, tables and clips; `templates/` say how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from beatmeter import __version__
from beatmeter.evaluation.figures import to_inline
from beatmeter.runtime.templates import render
from beatmeter.schema import Finding


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (also of its file), title and the sentence that says how to read it."""

    name: str
    figure: Figure
    title: str
    caption: str
    wide: bool = False

    def svg(self) -> Markup:
        """An `<svg>` element."""
        return Markup(to_inline(self.figure, self.name, f"{self.title}. {self.caption}"))


@dataclass(frozen=True)
class Card:
    """One answer at a glance. `level` draws a bar at its side; the words say the same."""

    name: str
    big: str
    small: str
    level: Literal["", "ok", "warning"] = ""


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it is too wide; columns `wrap` may break lines; `colours` (row) are
    "blue", "red" or ""."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrap: Sequence[int] = ()
    colours: Sequence[str] = ()


def by_level(findings: Sequence[Finding]) -> list[Finding]:
    """Warnings first."""
    return sorted(findings, key=lambda f: ("warning", "note", "ok").index(f.level))


def page(template: str, title: str, lead: str, **values: Any) -> str:
    """The whole HTML text: works offline, no scripts, light and dark."""
    return render(
        "beatmeter.evaluation.report", template, title=title, lead=lead, version=__version__, **values
    )
