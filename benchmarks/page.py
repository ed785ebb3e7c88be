"""Makes `README.md` and its plots from `results.jsonl`: `python benchmarks/page.py`. The newest line of each
title counts; those before it are drawn over time (history.py)."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import history
import numpy as np
from harness import Comparison, Fact, Growth, Result, from_line
from matplotlib.figure import Figure

from beatmeter.evaluation.figures import style

HERE = Path(__file__).parent
HEAD = """# Benchmarks

Made by `make bench` (all of it) or `make bench PART=store`; do not edit. Every number comes from one run on
one machine in which all ways were timed in turn, so that what disturbed one disturbed its neighbours.
*Speed* is relative to the baseline of the table: the median over rounds of the paired ratios, more is
faster. *Spread* is the 10th to 90th percentile of the ratio. *Load* is how many processes wanted a core:
well above the number of cores, ratios still tell something and times do not. *Commit* is what was measured,
with a + where the tree differed from it. Raw numbers: `results.jsonl`, to which every run adds; the last
section draws them over time.
"""
NO_GPU = """## On a GPU

Not measured: no machine of this page has one. `make bench` on a machine with one adds its numbers; every part
that uses torch takes it, with more clips where a processor would take too long.
"""
PARTS = (
    "extraction",
    "encoders",
    "engines",
    "store",
    "training",
    "lora",
    "predict",
    "hearing",
    "index",
    "probes",
    "copies",
    "beside",
)


def read(path: Path) -> list[tuple[Result, dict[str, Any]]]:
    """The newest result of each part and title, in the order of their first appearance."""
    found: dict[tuple[str, str], tuple[Result, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        result, rest = from_line(line)
        found[result.part, result.title] = (result, rest)
    order = {part: i for i, part in enumerate(PARTS)}
    return sorted(found.values(), key=lambda item: order.get(item[0].part, len(order)))


def write(lines: Path, folder: Path) -> None:
    """README.md and plots/*.png in `folder`."""
    results = read(lines)
    machines = list(dict.fromkeys(_machine(rest) for _, rest in results))
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    where = "\n".join(f"* Machine {i}: {machine}" for i, machine in enumerate(machines, 1)) + "\n"
    text, used, part = [HEAD, where, _targets([r for r, _ in results])], set(), ""
    for result, rest in results:
        if result.part != part:
            part = result.part
            text.append(f"## {part.capitalize()}\n")
        text.append(f"### {result.title}\n")
        name = f"{part}-{_slug(result.title)}.png"
        if isinstance(result, Comparison):
            (plots / name).write_bytes(style.to_png(_bars(result)))
            text += [_comparison(result), f"![speed relative to {result.base}](plots/{name})\n"]
        elif isinstance(result, Growth):
            (plots / name).write_bytes(style.to_png(_curves(result)))
            text += [_growth(result), f"![{result.title}](plots/{name})\n"]
        else:
            text.append(f"{result.value:.4g} {result.unit}{_promise(result)}\n")
        used.add(name)
        text.append(
            (f"{result.note}\n\n" if result.note else "")
            + (
                f"<sub>{_commit(rest)}{rest['time']}, machine {1 + machines.index(_machine(rest))}, load "
                f"{rest['load']}</sub>\n"
            )
        )
    if all(rest["machine"]["accelerator"] == "none" for _, rest in results):
        text.append(NO_GPU)
    over_time = history.courses(lines)
    if over_time:
        text.append("## Over time\n\nEvery benchmark that was measured more than once; red: its target.\n")
    for part, moved in over_time.items():
        name = f"history-{part}.png"
        (plots / name).write_bytes(style.to_png(history.draw(moved)))
        text.append(f"![{part}, from commit to commit](plots/{name})\n")
        used.add(name)
    for stale in plots.glob("*.png"):
        if stale.name not in used:
            stale.unlink()
    (folder / "README.md").write_text("\n".join(text), encoding="utf-8")


def _commit(rest: dict[str, object]) -> str:
    return f"commit {rest['commit']}, " if rest["commit"] else ""


def _machine(rest: dict[str, object]) -> str:
    """Where a result was measured."""
    where = rest["machine"]
    assert isinstance(where, dict)
    return "; ".join(f"{name} {value}" for name, value in where.items())


def _targets(results: list[Result]) -> str:
    rows: list[tuple[Result, str, bool]] = []
    for result in results:
        if isinstance(result, Comparison):
            rows += [(result, text, met) for text, met in result.verdicts()]
        elif isinstance(result, Fact) and result.bound is not None:
            rows.append((result, f"{result.value:.4g} {result.unit}{_promise(result)}", result.met))
    lines = [
        f"| {r.part} | {r.title} | {text} | {'yes' if met else f'**no**. {r.note}'} |"
        for r, text, met in rows
    ]
    met = sum(met for _, _, met in rows)
    return (
        "\n".join(
            [
                f"## Targets: {met} of {len(rows)} met\n",
                "| part | what | measured | met |",
                "| --- | --- | --- | --- |",
                *lines,
            ]
        )
        + "\n"
    )


def _promise(fact: Fact) -> str:
    return "" if fact.bound is None else f" ({fact.kind} {fact.bound:g} {fact.unit})"


def _comparison(c: Comparison) -> str:
    rate = c.amount > 0
    head = f"| way | ms | speed (x {c.base}) | spread |" + (f" {c.unit}/s |" if rate else "")
    lines = [head, "| --- | --- | --- | --- |" + (" --- |" if rate else "")]
    for name, seconds in c.seconds.items():
        low, high = np.percentile(c.ratios(name), [10, 90])
        middle = statistics.median(seconds)
        bold = "**" if name == c.ours else ""
        line = f"| {bold}{name}{bold} | {middle * 1e3:.4g} | {c.ratio(name):.3g} | {low:.3g} - {high:.3g} |"
        lines.append(line + (f" {c.amount / middle:.4g} |" if rate else ""))
    return "\n".join(lines) + "\n"


def _growth(g: Growth) -> str:
    lines = [
        f"| {g.size_name} | {' | '.join(f'{name} ({g.unit})' for name in g.series)} |",
        "| --- " * (1 + len(g.series)) + "|",
    ]
    lines += [
        f"| {size:g} | {' | '.join(f'{values[i]:.4g}' for values in g.series.values())} |"
        for i, size in enumerate(g.sizes)
    ]
    return "\n".join(lines) + "\n"


@style.styled
def _bars(c: Comparison) -> Figure:
    names = list(c.seconds)
    figure, (axes,) = style.blank(0.7 + 0.3 * len(names), width=6.4)
    middle = np.array([c.ratio(name) for name in names])
    spread = np.array([np.percentile(c.ratios(name), [10, 90]) for name in names])
    colours = [
        style.BLUE if name == c.ours else style.GRID if name == c.base else style.MUTED for name in names
    ]
    error = np.abs(spread.T - middle)
    axes.barh(names, middle, color=colours, xerr=error, error_kw={"ecolor": style.INK, "elinewidth": 0.8})
    for at, value, (_, high) in zip(range(len(names)), middle, spread, strict=True):
        axes.annotate(
            f"{value:.2g}",
            (max(value, high), at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(1, color=style.RED, linewidth=0.8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"speed, x {c.base}")
    style.strip(axes, "left")
    return figure


@style.styled
def _curves(g: Growth) -> Figure:
    figure, (axes,) = style.blank(2.8, width=6.4)
    for number, (name, values) in enumerate(g.series.items()):
        axes.plot(
            g.sizes,
            values,
            "o-",
            color=(style.BLUE, style.RED, style.INK, style.MUTED)[number % 4],
            label=name,
            markersize=3,
        )
    axes.set_xscale("log")
    if all(v > 0 for values in g.series.values() for v in values):
        axes.set_yscale("log")
    axes.set_xlabel(g.size_name)
    axes.set_ylabel(g.unit)
    axes.grid(True)
    axes.legend(fontsize=8)
    return figure


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())[:60]


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results.jsonl", HERE)
