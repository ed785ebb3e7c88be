"""Measures models on what is hard to hear, slice by slice; prints a table.

    beatmeter data synth data/hard --clips 2700 --seed 11 --mix hard
    python tools/slices.py data/hard spectral-lag ensemble [runs/NAME ...] [--split=test]

Every clip is heard as it is, and those in one meter of 10 s and more once more as the 5 s in their middle.
What was heard is kept in runs/slices.jsonl, by model and track, so a stopped run goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.groupings import GROUPINGS, grouping_of, kind_of, read_grouping
from beatmeter.evaluation.metrics import estimate, metric, wilson
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.schema import ClassPredictions, Track
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import DataConfig

HEARD = Path("runs") / "slices.jsonl"
ALARMS = 0.05  # share of clips in one meter in which a second one may be named
EXCERPT = 5.0  # seconds
MARK = "@5"  # of its row
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


def of_class(name: str) -> Among:
    """Tracks of this class."""
    return lambda t: t.primary == name


SLOW = among("bar", 6, 12.5)
SLICES: dict[str, Among] = {
    "one meter, 10 s and more": one_meter(),
    **{f"slice {name}": one_meter(among("seconds", slice=name)) for name in ("plain", "dance", "disguised")},
    "bars of 0.5 to 1.2 s": one_meter(among("bar", 0.5, 1.2)),
    "bars of 1 to 3 s": one_meter(among("bar", 1, 3)),
    "bars of 3 to 6 s": one_meter(among("bar", 3, 6)),
    "bars of 6 to 12.5 s": one_meter(SLOW),
    **{f"bars of 6 to 12.5 s in {name}": one_meter(SLOW, of_class(name)) for name in GROUPINGS},
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
    if not tracks:
        sys.exit(f"{place} has no usable track of the split {split}: name another with --split=")
    HEARD.parent.mkdir(parents=True, exist_ok=True)
    rows = read_json_lines(HEARD).values if HEARD.exists() else []
    known = {(row["model"], row["id"]) for row in rows}
    with HEARD.open("a", encoding="utf-8") as file:
        for model in models:
            missing = [t for t in tracks if (model, t.id) not in known]
            predictor = Predictor.load(model) if missing else None
            for t in missing:
                assert predictor is not None
                for row in heard_in(predictor, t):
                    rows.append({"model": model, **row})
                    file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    by_model = {m: {row["id"]: row for row in rows if row["model"] == m} for m in models}
    print(table(tracks, by_model))


def heard_in(predictor: Predictor, track: Track) -> list[dict[str, Any]]:
    """What a model says of a track, and of the 5 s in its middle where that is a question."""
    rate = predictor.scorer.sample_rate
    wave = load(track.path)
    parts = {track.id: wave}
    if one_meter()(track):
        first = (len(wave) - round(EXCERPT * rate)) // 2
        parts[track.id + MARK] = wave[first : first + round(EXCERPT * rate)]
    rows = []
    for name, part in parts.items():
        began = time.process_time()
        answer = predictor.predict(part, rate)
        groupings = answer.groupings.get(track.primary or "", {})
        rows.append(
            {
                "id": name,
                "order": [answer.classes[i] for i in answer.order[:2]],
                "scores": answer.scores.round(5).tolist(),
                "second": answer.second,
                "two": answer.two,
                "heard": answer.heard,
                "grouping": max(groupings, key=lambda g: groupings[g], default=None),
                "cpu": round(time.process_time() - began, 4),
            }
        )
    return rows


def table(tracks: list[Track], heard: Mapping[str, Mapping[str, Row]]) -> str:
    """Accuracy by slice in percent with Wilson's intervals; what is said of pairs and groupings; calibration
    error and cost."""
    lines = [
        "| right, % | n | " + " | ".join(f"`{Path(m).name}`" for m in heard) + " |",
        "|---|---:|" + "---:|" * len(heard),
    ]

    def add(title: str, n: int, cell: Callable[[Mapping[str, Row]], str]) -> None:
        lines.append(f"| {title} | {n} | " + " | ".join(cell(rows) for rows in heard.values()) + " |")

    def line(title: str, of: list[Track], hit: Callable[[Track, Row], bool], mark: str = "") -> None:
        add(title, len(of), lambda rows: share([hit(t, rows[t.id + mark]) for t in of]))

    def right(track: Track, row: Row) -> bool:
        return bool(row["order"][0] == track.primary)

    def both(track: Track, row: Row) -> bool:
        return set(row["order"]) == set(track.labels)

    for title, inside in SLICES.items():
        line(title, [t for t in tracks if inside(t)], right)
    pairs = [t for t in tracks if t.extra["slice"] == "pairs" and float(t.extra["seconds"]) >= 10]
    singles = [t for t in tracks if one_meter()(t)]
    line("5 s of one meter", singles, right, MARK)
    line("two meters: both on top", pairs, both)
    line("two meters: both named", pairs, lambda t, r: {r["order"][0], r["second"]} == set(t.labels))
    line("one meter: a second is named", singles, lambda t, r: r["second"] is not None)

    def at_alarms(rows: Mapping[str, Row]) -> str:
        floor = np.quantile([doubt(rows[t.id]) for t in singles], 1 - ALARMS, method="higher")
        return share([both(t, rows[t.id]) and doubt(rows[t.id]) > floor for t in pairs])

    if pairs and singles:
        add(f"both named, were {100 * ALARMS:.0f} % of alarms allowed", len(pairs), at_alarms)
        add(
            "area under the curve, two meters from one",
            len(pairs) + len(singles),
            lambda rows: f"{area(*([doubt(rows[t.id]) for t in of] for of in (pairs, singles))):.2f}",
        )
    known = [(t, name) for t in singles if (name := _grouping(t))]
    additive = [t for t, name in known if kind_of(name) == "additive"]
    folded = [t for t, name in known if t.primary in ("3", "4")]
    for title, of in (("grouping of additive meters", additive), ("simple or compound, of 3 and 4", folded)):
        add(f"{title}, the class known", len(of), partial(grouped, of))
    labelled = [t for t in tracks if t.labels]
    add("calibration error of the answer", len(labelled), lambda rows: error(labelled, rows))
    add("the same of 5 s", len(singles), lambda rows: error(singles, rows, MARK))
    whole = [t for t in tracks if float(t.extra["seconds"]) >= 29.9]
    add(
        "CPU seconds for 30 s, median",
        len(whole),
        lambda rows: f"{np.median([rows[t.id].get('cpu', np.nan) for t in whole]):.2f}",
    )
    return "\n".join(lines)


def error(tracks: list[Track], rows: Mapping[str, Row], mark: str = "") -> str:
    """How far the scores of answers are from how often they are right, with a bootstrap interval."""
    if not tracks:
        return "-"
    scores = np.array([rows[t.id + mark]["scores"] for t in tracks])
    found = estimate(
        metric("primary_ece"), ClassPredictions.of_tracks(tracks, tuple(GROUPINGS), scores, "test")
    )
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def grouped(tracks: list[Track], rows: Mapping[str, Row]) -> str:
    """How many groupings are right, of a model that knows any."""
    knows = any(rows[t.id]["grouping"] for t in tracks)
    return share([rows[t.id]["grouping"] == _grouping(t) for t in tracks]) if knows else "-"


def _grouping(track: Track) -> str | None:
    return grouping_of(track.primary or "", read_grouping(track.extra["grouping"]))


def doubt(row: Row) -> float:
    """How much speaks for two meters: what a model says of that, else the second highest score."""
    return float(sorted(row["scores"])[-2] if row.get("two") is None else row["two"])


def area(high: list[float], low: list[float]) -> float:
    """Chance that a value of `high` is above one of `low`; ties count half."""
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
