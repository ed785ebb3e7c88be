"""Measures models on what is hard to hear, slice by slice; prints a table.

    beatmeter data synth data/hard-test --clips 600 --mix hard --seed 77
    python tools/slices.py data/hard-test spectral-lag ensemble [runs/NAME ...] [--split=test]

What was heard is kept in runs/slices.jsonl, by model and track, so a stopped run goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.groupings import GROUPINGS, grouping_of, read_grouping
from beatmeter.evaluation.metrics import wilson
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.schema import Track
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import DataConfig

HEARD = Path("runs") / "slices.jsonl"
Row = Mapping[str, Any]
Among = Callable[[Track], bool]


def among(column: str, low: float = -np.inf, high: float = np.inf, **values: str) -> Among:
    """Tracks whose number in a column lies in [low, high) and whose other columns have these values."""

    def inside(track: Track) -> bool:
        number = float(track.extra.get(column) or "nan")
        return low <= number < high and all(track.extra[name] == text for name, text in values.items())

    return inside


def one_meter(*others: Among) -> Among:
    """Tracks in one meter that are 10 s or longer and belong to all of `others`."""
    long = among("seconds", low=10)
    return lambda t: len(t.labels) == 1 and long(t) and all(inside(t) for inside in others)


SLICES: dict[str, Among] = {
    "one meter, 10 s and more": one_meter(),
    **{f"slice {name}": one_meter(among("seconds", slice=name)) for name in ("plain", "dance", "disguised")},
    "bars of 1 to 3 s": one_meter(among("bar", 1, 3)),
    "bars of 3 to 6 s": one_meter(among("bar", 3, 6)),
    "bars of 6 to 12.5 s": one_meter(among("bar", 6, 12.5)),
    "rubato to 15 %": one_meter(among("rubato", 0.001, 0.15)),
    "rubato 15 to 35 %": one_meter(among("rubato", 0.15, 0.35)),
    "rubato 35 % and more": one_meter(among("rubato", 0.35)),
    "clips of 3 to 6 s": lambda t: len(t.labels) == 1 and among("seconds", 3, 6)(t),
    "clips of 6 to 10 s": lambda t: len(t.labels) == 1 and among("seconds", 6, 10)(t),
}


def main() -> None:
    """Hear what was not heard yet, then write the table."""
    flags = [a for a in sys.argv[1:] if a.startswith("--")]
    split = next((f.partition("=")[2] for f in flags if f.startswith("--split=")), "test")
    place, *models = [a for a in sys.argv[1:] if not a.startswith("--")]
    tracks = [
        t
        for t in open_dataset(place, DataConfig(), tuple(GROUPINGS)).tracks
        if split == "all" or t.split == split
    ]
    HEARD.parent.mkdir(parents=True, exist_ok=True)
    rows = read_json_lines(HEARD).values if HEARD.exists() else []
    known = {(row["model"], row["id"]) for row in rows}
    with HEARD.open("a", encoding="utf-8") as file:
        for model in models:
            missing = [t for t in tracks if (model, t.id) not in known]
            predictor = Predictor.load(model) if missing else None
            for t in missing:
                assert predictor is not None
                answer = predictor.predict(load(t.path), predictor.scorer.sample_rate)
                scores = answer.scores.round(5).tolist()
                order = [answer.classes[i] for i in answer.order[:2]]
                groupings = answer.groupings.get(t.primary or "", {})
                best = max(groupings, key=lambda name: groupings[name], default=None)
                rows.append(
                    {"model": model, "id": t.id, "order": order, "scores": scores, "second": answer.second,
                     "heard": answer.heard, "grouping": best}
                )  # fmt: skip
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    by_model = {m: {row["id"]: row for row in rows if row["model"] == m} for m in models}
    print(table(tracks, by_model))


def table(tracks: list[Track], heard: Mapping[str, Mapping[str, Row]]) -> str:
    """Accuracy by slice in percent with Wilson's intervals; and what is said of pairs and groupings."""
    lines = [
        "| right, % | n | " + " | ".join(f"`{Path(m).name}`" for m in heard) + " |",
        "|---|---:|" + "---:|" * len(heard),
    ]

    def line(title: str, of: list[Track], hit: Callable[[Track, Row], bool]) -> None:
        cells = [share([hit(t, rows[t.id]) for t in of]) for rows in heard.values()]
        lines.append(f"| {title} | {len(of)} | " + " | ".join(cells) + " |")

    for title, inside in SLICES.items():
        line(title, [t for t in tracks if inside(t)], lambda t, row: row["order"][0] == t.primary)
    pairs = [t for t in tracks if t.extra["slice"] == "pairs" and float(t.extra["seconds"]) >= 10]
    singles = [t for t in tracks if one_meter()(t)]
    line("two meters: both on top", pairs, lambda t, row: set(row["order"]) == set(t.labels))
    line(
        "two meters: both named",
        pairs,
        lambda t, row: {row["order"][0], row["second"]} == set(t.labels),
    )
    line("one meter: a second is named", singles, lambda t, row: row["second"] is not None)
    areas = [
        area([seconds(rows[t.id]) for t in pairs], [seconds(rows[t.id]) for t in singles])
        for rows in heard.values()
    ]
    lines.append(
        f"| area under the curve of the second score | {len(pairs) + len(singles)} | "
        + " | ".join(f"{a:.2f}" for a in areas)
        + " |"
    )
    grouped = [t for t in singles if _grouping(t) and t.primary not in ("3", "4")]
    folded = [t for t in singles if _grouping(t) and t.primary in ("3", "4")]
    line("grouping of 5, 7, 9, 11, the class known", grouped, lambda t, row: row["grouping"] == _grouping(t))
    line("simple or compound, of 3 and 4", folded, lambda t, row: row["grouping"] == _grouping(t))
    return "\n".join(lines)


def _grouping(track: Track) -> str | None:
    return grouping_of(track.primary or "", read_grouping(track.extra["grouping"]))


def seconds(row: Row) -> float:
    """The second highest score."""
    return float(sorted(row["scores"])[-2])


def area(high: list[float], low: list[float]) -> float:
    """Chance that a value of `high` is above one of `low`; ties count half."""
    if not high or not low:
        return float("nan")
    a, b = np.array(high)[:, None], np.array(low)[None, :]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def share(hits: list[bool]) -> str:
    """A share in percent with Wilson's interval."""
    if not hits:
        return "-"
    low, high = wilson(sum(hits), len(hits))
    return f"{100 * np.mean(hits):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
