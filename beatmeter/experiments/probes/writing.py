"""A probing as text, page, JSON and predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beatmeter.errors import DataError, shown
from beatmeter.evaluation.figures.style import BLUE, INK, RED, blank, strip, styled
from beatmeter.evaluation.records import write_records
from beatmeter.evaluation.report.page import Card, Drawn, Table, page
from beatmeter.evaluation.report.text import number, table, wrapped
from beatmeter.experiments.probes.probing import FUSED, Probe, Row
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import write_json
from beatmeter.schema import ValuePredictions

BLIND = 0.03  # what a null control may show


def probe_text(p: Probe) -> str:
    """The table with a legend."""
    about = (
        f"{len(p.subject.ids)} items in {len(set(p.subject.groups))} groups; {p.folds} folds of whole groups,"
        f" {p.seeds} seeds. Values: R2 of ridge regression; classes: accuracy of shrinkage LDA; both out of"
        " fold with 95 % intervals over groups. Strengths were chosen in inner folds."
    )
    lines = [
        *wrapped(about),
        "",
        *table(*_table(p)),
        "",
        *(line for note in _notes(p) for line in wrapped(note)),
    ]
    return "\n".join(lines) + "\n"


def _table(p: Probe) -> tuple[list[str], list[list[str]]]:
    fused = FUSED in p.rows[0].cells
    header = ["target", "", "best layer", "value [95 %]", "not worse", *([FUSED] if fused else [])]
    header += [cell for name in p.controls for cell in (name, "p")] + ["shuffled", "chance"]
    rows = []
    for row in p.rows:
        cell = row.cells[row.best]
        line = [row.target, row.kind, row.best, str(cell.score).replace("0.", "."), _beside(row, p)]
        line += [number(row.cells[FUSED].score.value)] if fused else []
        for name in p.controls:
            line += [number(row.cells[name].score.value), "" if row.null else _p(row.against[name].p)]
        rows.append([*line, number(cell.shuffled), number(row.chance)])
    return header, rows


def _beside(row: Row, p: Probe) -> str:
    """The set of layers that cannot be told from the best."""
    if len(row.beside) == 1:
        return "a winner" if len(p.layers) > 1 else ""
    return (
        "all" if len(row.beside) == len(p.layers) else ", ".join(n.removeprefix("layer ") for n in row.beside)
    )


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}"


def _notes(p: Probe) -> list[str]:
    compared = (
        f"{FUSED} against each control" if FUSED in p.rows[0].cells else "the layer against each control"
    )
    notes = [
        "not worse: the layers that cannot be told from the best (paired bootstrap over groups, Holm over"
        f" layers); a winner stands alone. p: {compared} (signs of groups flipped), Holm over"
        " targets. shuffled: the same fits on shuffled labels. chance: the mean of all values, or the most"
        " frequent class.",
    ]
    seen = [
        f"{row.target} {cell.score.value:+.2f} in {name}"
        for row in p.rows
        if row.null
        for name, cell in row.cells.items()
        if name not in p.controls and cell.score.low > BLIND
    ]
    if seen:
        notes.append(
            f"warning: features know of a null column: {'; '.join(seen[:4])}."
            " Something beside the music is in them."
        )
    notes += [f"left out: {name}: {why}" for name, why in p.refused.items()]
    return notes


@styled
def heat_map(p: Probe) -> Figure:
    """Layers by targets: the value in every square, darker for more; a frame around those that cannot be told
    from the best."""
    columns = [*p.layers, *([FUSED] if FUSED in p.rows[0].cells else []), *p.controls]
    figure, (axes,) = blank(0.9 + 0.27 * len(p.rows), width=2.2 + 0.42 * len(columns))
    for i, row in enumerate(p.rows):
        for j, name in enumerate(columns):
            _square(axes, (j, i), row.cells[name].score.value)
            if name in row.beside:
                axes.add_patch(
                    Rectangle((j + 0.04, i + 0.06), 0.92, 0.88, fill=False, edgecolor=RED, linewidth=1.1)
                )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(p.rows), 0)
    names = [name.removeprefix("layer ") for name in columns]
    axes.set_xticks(np.arange(len(columns)) + 0.5, names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(np.arange(len(p.rows)) + 0.5, [row.target for row in p.rows])
    axes.set_xlabel("layer")
    strip(axes, "left", "bottom")
    return figure


def _square(axes: Axes, corner: tuple[int, int], value: float) -> None:
    """A number in [0, 1] in a square of a map, the darker the higher."""
    x, y = corner
    axes.add_patch(Rectangle(corner, 1, 1, color=BLUE, alpha=0.75 * float(np.clip(value, 0, 1)), linewidth=0))
    text = f"{value:.2f}".replace("0.", ".")
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7.5, color=INK)


@styled
def cka_map(p: Probe) -> Figure:
    """Linear CKA of every two layers."""
    n = len(p.layers)
    figure, (axes,) = blank(1.0 + 0.36 * n, width=1.2 + 0.42 * n)
    for i in range(n):
        for j in range(n):
            _square(axes, (j, i), float(p.cka[i, j]))
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    names = [name.removeprefix("layer ") for name in p.layers]
    axes.set_xticks(np.arange(n) + 0.5, names)
    axes.set_yticks(np.arange(n) + 0.5, names)
    axes.set_xlabel("layer")
    strip(axes, "left", "bottom")
    return figure


def write_probe(p: Probe, out: Path, title: str) -> None:
    """Write probe.txt, probe.json, probe.html and predictions/<features>.csv, which `report` and `evaluate`
    read, to `out`.

    Raises DataError when it cannot be written.
    """
    drawn = [
        Drawn(
            "probes",
            heat_map(p),
            "What every layer knows",
            "R2 or accuracy; framed: not worse than the best.",
            wide=True,
        )
    ]
    if len(p.layers) > 1:
        drawn.append(
            Drawn("cka", cka_map(p), "How alike layers are", "Linear CKA: 1 up to a rotation and a factor.")
        )
    header, rows = _table(p)
    music = [row for row in p.rows if not row.null]
    top = sorted(music, key=lambda r: -r.cells[r.best].score.value)[:3]
    cards = [
        Card(row.target, number(row.cells[row.best].score.value), f"{row.kind} of {row.best}; {_told(row)}")
        for row in top
    ]
    lead = f"{len(p.subject.ids)} items in {len(set(p.subject.groups))} groups"
    html = page(
        "probes.html", title, lead, glance=cards, drawn=drawn, scores=Table(header, rows), notes=_notes(p)
    )
    try:
        atomic.write_text(out / "probe.txt", probe_text(p))
        write_json(out / "probe.json", to_json(p), ensure_ascii=False)
        atomic.write_text(out / "probe.html", html)
        for name in p.rows[0].cells:
            predictions = _predictions(p, name)
            if predictions is not None:
                write_records(out / "predictions" / f"{name.replace(' ', '-')}.csv", predictions)
    except OSError as error:
        raise DataError(
            f"cannot write to {shown(out)}: {error.strerror or error}", "Choose another --out."
        ) from None


def _told(row: Row) -> str:
    return (
        ", ".join(f"{name} {number(row.cells[name].score.value)}" for name in row.against)
        or f"chance {number(row.chance)}"
    )


def _predictions(p: Probe, name: str) -> ValuePredictions | None:
    """What one set of features says of every item that all values are known of, mean over seeds."""
    rows = [row for row in p.rows if row.cells[name].predicted is not None]
    if not rows:
        return None
    values = np.stack([np.asarray(row.cells[name].predicted) for row in rows], axis=1)
    at = [p.subject.names.index(row.target) for row in rows]
    targets = p.subject.values[:, at].copy()
    targets[np.isnan(values)] = np.nan
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)  # no target stands beside these
    n = len(p.subject.ids)
    return ValuePredictions(
        ids=p.subject.ids,
        groups=p.subject.groups,
        sources=("",) * n,
        split="out-of-fold",
        times=np.full((n, 2), np.nan),
        meta={"features": name, "folds": p.folds, "seeds": p.seeds},
        names=tuple(row.target for row in rows),
        units=tuple(row.unit for row in rows),
        values=values,
        targets=targets,
    )


def to_json(p: Probe) -> dict[str, Any]:
    """Everything but the predictions, as plain JSON."""
    return {
        "items": len(p.subject.ids),
        "groups": len(set(p.subject.groups)),
        "folds": p.folds,
        "seeds": p.seeds,
        "layers": list(p.layers),
        "controls": list(p.controls),
        "refused": dict(p.refused),
        "cka": [[round(float(v), 4) for v in row] for row in p.cka],
        "targets": [
            {
                "target": row.target,
                "unit": row.unit,
                "kind": row.kind,
                "items": row.items,
                "best": row.best,
                "not worse": list(row.beside),
                "chance": row.chance,
                "cells": {
                    name: {
                        "value": c.score.value,
                        "low": c.score.low,
                        "high": c.score.high,
                        "seeds": list(c.seeds),
                        "shuffled": c.shuffled,
                    }
                    for name, c in row.cells.items()
                },
                "against": {
                    name: {"difference": -d.value if d.value == 0 else d.value, "low": d.low, "high": d.high}
                    | ({} if math.isnan(d.p) else {"p": d.p})
                    for name, d in row.against.items()
                },
            }
            for row in p.rows
        ],
    }
