"""How often models hear the meter of the same music at an even tempo and as it bends more and more; prints a
table, draws docs/img/rubato.svg.

    python tools/rubato.py ensemble ensemble-long [runs/NAME ...] --works 96

A work is a piece of the generator's slice `rubato`, of the classes in turn, performed for 30 s at every
depth: how far the tempo goes from its median within phrases. No model has learned from these seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from matplotlib.figure import Figure
from new_default import change, points

from beatmeter.datasets.synth.slices import render_slice
from beatmeter.evaluation.figures.style import (
    BLUE,
    MUTED,
    SURFACE,
    blank,
    percent_axis,
    strip,
    styled,
    to_svg,
)
from beatmeter.evaluation.metrics import Estimate, share
from beatmeter.serving.predictor import Predictor

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "img" / "rubato.svg"
DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
FIRST = 77_000_000  # seed
RATE = 24_000
Hits = Mapping[str, np.ndarray]  # by model, (work, depth)


def main() -> None:
    """Render, hear, tell."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("models", nargs="+")
    words.add_argument("--works", type=int, default=96)
    given = words.parse_args()
    hits = heard({name: Predictor.load(name) for name in given.models}, given.works)
    print(table(hits))
    FIGURE.write_text(to_svg(figure(hits), "rubato"), encoding="utf-8")


def heard(models: Mapping[str, Predictor], works: int) -> Hits:
    """Whether each model names the meter of each work at each depth."""
    hits = {name: np.zeros((works, len(DEPTHS))) for name in models}
    for work in range(works):
        for at, depth in enumerate(DEPTHS):
            classes = next(iter(models.values())).classes
            meter = int(classes[work % len(classes)])
            clip = render_slice(FIRST + work, "rubato", meter=meter, sample_rate=RATE, rubato=depth)
            for name, model in models.items():
                scores = model.predict(clip.audio, RATE).scores
                hits[name][work, at] = classes[int(np.argmax(scores))] == str(meter)
    return hits


def table(hits: Hits) -> str:
    """Percent right by depth, and what the last model hears beyond the one before it, paired."""
    names = list(hits)
    head = ["tempo bends by, %", *(f"`{name}`" for name in names), *(["difference"] if names[1:] else [])]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for at, depth in enumerate(DEPTHS):
        each = [own[:, at] for own in hits.values()]
        works = [str(work) for work in range(len(each[0]))]
        cells = [cell(found(own)) for own in each]
        if names[1:]:
            cells.append(points(change(each[-2], each[-1], works)))
        lines.append(f"| {100 * depth:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def found(own: np.ndarray) -> Estimate:
    """The share of works, with its interval."""
    return share(own, [str(work) for work in range(len(own))])


def cell(of: Estimate) -> str:
    """In percent."""
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]"


@styled
def figure(hits: Hits) -> Figure:
    """Accuracy over depth: the last model with its interval, the others beside it."""
    drawn, (axes,) = blank(2.9)
    for name, own in hits.items():
        last = name == list(hits)[-1]
        color = BLUE if last else MUTED
        each = [found(own[:, at]) for at in range(len(DEPTHS))]
        if last:
            axes.fill_between(
                DEPTHS, [e.low for e in each], [e.high for e in each], color=color, alpha=0.15, linewidth=0
            )
        axes.plot(DEPTHS, [e.value for e in each], "o-", color=color, markersize=4, markeredgecolor=SURFACE)
        axes.annotate(
            Path(name).name,
            (DEPTHS[-1], each[-1].value),
            xytext=(6, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    percent_axis(axes, "y")
    strip(axes, "left")
    axes.set_xlim(-0.02, 0.72)  # room for the names
    axes.set_xticks(DEPTHS, [f"{100 * depth:.0f}" for depth in DEPTHS])
    axes.set_title("The meter is right, %")
    axes.set_xlabel("how far the tempo goes from its median, %")
    return drawn


if __name__ == "__main__":
    main()
