"""The building blocks of a page: cards, tables, figures, findings, and the self-contained HTML around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from matplotlib.figure import Figure

from beatmeter import __version__
from beatmeter.evaluation.figures import to_inline
from beatmeter.schema import Finding


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (also of its file), title and the sentence that says how to read it."""

    name: str
    figure: Figure
    title: str
    caption: str
    wide: bool = False

    def html(self) -> str:
        """A `<figure>` element."""
        kind = ' class="wide"' if self.wide else ""
        return (
            f'<figure{kind} id="{escape(self.name)}"><figcaption><b>{escape(self.title)}</b>{escape(self.caption)}</figcaption>'
            f"{to_inline(self.figure, self.name, f'{self.title}. {self.caption}')}</figure>"
        )


def figures(drawn: Sequence[Drawn]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(d.html() for d in drawn)}</div>' if drawn else ""


def card(name: str, big: str, small: str, level: str = "") -> str:
    """One answer at a glance. `level` "ok" or "warning" draws a bar at its side; the words say the same."""
    return (
        f'<div class="card {level}"><div class="name">{escape(name)}</div><div class="big">{escape(big)}</div>'
        f'<div class="small">{escape(small)}</div></div>'
    )


def cards(items: Sequence[str]) -> str:
    """Cards in a row."""
    return f'<div class="cards">{"".join(items)}</div>'


def section(title: str, *parts: str, lead: str = "") -> str:
    """A heading and what belongs under it; nothing when all parts are empty."""
    body = "".join(parts)
    told = f'<p class="muted">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>" if body else ""


def panel(*parts: str) -> str:
    """A box."""
    return f'<div class="panel">{"".join(parts)}</div>'


def side(*panels: str) -> str:
    """Panels side by side where there is room."""
    return f'<div class="side">{"".join(panels)}</div>' if any(panels) else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], wrap: Sequence[int] = (), colours: Sequence[str] = ()) -> str:
    """A table that scrolls sideways where it is too wide; columns `wrap` may break lines; `colours` (row) are "blue", "red" or ""."""
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    lines = []
    for i, row in enumerate(rows):
        colour = f' class="{colours[i]}"' if colours and colours[i] else ""
        cells = "".join(f'<td class="wrap left">{escape(c)}</td>' if k in wrap else f"<td>{escape(c)}</td>" for k, c in enumerate(row))
        lines.append(f"<tr{colour}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def walk(finding: Finding) -> str:
    """The four questions of the summary with their answers."""
    items = "".join(
        f'<li><div class="name">{escape(s["question"])}</div><div class="big">{escape(s["answer"])}</div>'
        f'<div class="small">{escape(s["because"])}</div></li>'
        for s in finding.values["steps"]
    )
    first = f"<p>{escape(finding.values['guessing'])}</p>" if finding.values["guessing"] else ""
    return f'{first}<ol class="walk">{items}</ol>'


def findings(found: Sequence[Finding]) -> str:
    """All findings, warnings first."""
    order = {"warning": 0, "note": 1, "ok": 2}
    items = "".join(
        f'<li><span class="badge {f.level}">{f.level}</span><b>{escape(f.name.replace("_", " "))}</b>: {escape(f.text)}</li>'
        for f in sorted(found, key=lambda f: order[f.level])
    )
    return f'<ul class="findings">{items}</ul>'


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, *parts: str) -> str:
    """Something that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def page(title: str, lead: str, *sections: str) -> str:
    """The whole HTML text: no network, no scripts, light and dark."""
    style = resources.files("beatmeter.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="beatmeter {escape(__version__)}"><link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f'<style>\n{style}</style></head><body><main><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        + "\n".join(s for s in sections if s)
        + "\n</main></body></html>\n"
    )
