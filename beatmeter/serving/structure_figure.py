"""The structure of a track on one time axis: sections as a strip, energy coloured by bands, events, and the
curves of beats with the bars; of many bars their tempo."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beatmeter.audio.energy import Name
from beatmeter.evaluation.figures.style import BLUE, GRID, INK, MUTED, RED, blank, strip, styled
from beatmeter.serving.structure import Structure

SHADES = (BLUE, RED, MUTED, INK)
COLUMNS = 900  # points of a curve over the width
FEW_BARS = 60  # bars that are drawn one by one


@styled
def structure_figure(s: Structure) -> Figure:
    """Four strips over the whole track; of the curves the highest value in each column is drawn."""
    heights = {"height_ratios": [0.5, 1.6, 1.2]}
    figure, (strips, energy, curves) = blank(4.2, 3, width=9.0, sharex=True, gridspec_kw=heights)
    _sections(strips, s)
    _energy(energy, s)
    if len(s.downbeats) <= FEW_BARS:
        _curves(curves, s)
    else:  # curves of many bars are a hedge
        _tempo(curves, s)
    tempo = "no beats heard" if s.tempo is None else f"{s.tempo:.0f} bpm"
    strips.set_title(
        f"{s.path.name}: {tempo}, {f'meter {s.meter.meter}' if s.meter.meter else 'no meter heard'}"
    )
    curves.set_xlim(0, s.seconds)
    step = next(x for x in (1, 5, 10, 30, 60, 300, 600, 3600) if s.seconds / x <= 12 or x == 3600)
    ticks = np.arange(0, s.seconds + 1e-9, step)
    curves.set_xticks(ticks, [f"{int(t // 60)}:{int(t % 60):02d}" for t in ticks])
    return figure


def _sections(axes: Axes, s: Structure) -> None:
    letters = sorted(set(s.sections.names))
    for start, end, name in zip(s.sections.starts, s.sections.ends, s.sections.names, strict=True):
        colour = SHADES[letters.index(name) % len(SHADES)]
        axes.axvspan(start, end, color=colour, alpha=0.25 + 0.12 * (letters.index(name) // len(SHADES)), lw=0)
        axes.axvline(start, color=INK, lw=0.6)
        if end - start > s.seconds / 60:
            axes.text((start + end) / 2, 0.5, name, ha="center", va="center", color=INK)
    for kind, at in zip(s.events.kinds, s.events.starts, strict=True):
        axes.plot([at], [1.0], marker="v" if kind == "drop" else "^", color=RED, clip_on=False, ms=6)
    axes.set(ylim=(0, 1), yticks=[])
    strip(axes, "left", "bottom")


def _energy(axes: Axes, s: Structure) -> None:
    times = s.levels.times
    bands: tuple[tuple[Name, str], ...] = (("high", MUTED), ("mid", BLUE), ("bass", RED))
    for name, colour in bands:
        axes.plot(times, s.levels.scale(name), color=colour, lw=1.2, label=name)
    axes.set(ylim=(0.5, 10.5), yticks=[1, 5, 10], ylabel="energy")
    axes.grid(True, axis="y")
    _legend(axes)


def _curves(axes: Axes, s: Structure) -> None:
    values, times = s.curves.values[0], s.curves.seconds(0)
    for column, colour, name in ((0, BLUE, "beat"), (1, RED, "downbeat")):
        parts = np.array_split(np.arange(len(times)), min(COLUMNS, max(1, len(times))))
        at, top = [times[p[0]] for p in parts if len(p)], [values[p, column].max() for p in parts if len(p)]
        axes.plot(at, top, color=colour, lw=0.8, label=name)
    for bar in s.downbeats:
        axes.axvline(bar, color=GRID, lw=0.8, zorder=0)
    axes.set(ylim=(0, 1.05), yticks=[0, 0.5, 1], ylabel="beats")
    _legend(axes)


def _tempo(axes: Axes, s: Structure) -> None:
    """Beats a minute, bar by bar."""
    starts = np.flatnonzero(s.beats.places == 1)
    tempo = 60 * np.diff(starts) / np.diff(s.beats.times[starts])
    axes.step(s.downbeats[:-1], tempo, where="post", color=BLUE, lw=1.2)
    axes.set(ylim=(0.9 * tempo.min(), 1.1 * tempo.max()), ylabel="bpm")
    axes.grid(True, axis="y")


def _legend(axes: Axes) -> None:
    """Above the curves, not on them."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.96), borderaxespad=0.0, ncols=3, fontsize=8, frameon=False
    )
