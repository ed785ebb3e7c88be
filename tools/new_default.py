"""May a model become the default? The rule of docs/models.md, from predictions of the same test clips.

    python tools/new_default.py data/meter runs/models/ensemble runs/models/ensemble-long

The first model ships, the second wants to. Each is a folder with predictions/meter-test.csv, as
tools/hear_members.py and `beatmeter ensemble --split meter-test` write them, and with its calibration.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from beatmeter.datasets import open_dataset
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.metrics import wilson
from beatmeter.evaluation.metrics.significance import paired_bootstrap
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import ClassPredictions, Track
from beatmeter.settings import DataConfig

LOSS, LOWEST = -0.01, -0.025  # of ordinary accuracy: the difference, and the lower end of its interval
Among = Callable[[Track], bool]


def _in_set(*names: str) -> Among:
    return lambda t: t.path.parts[-3] in names


def _in_slice(name: str) -> Among:
    return lambda t: t.extra["slice"] == name


GROUPS: dict[str, Among] = {
    "ordinary": _in_set("ordinary", "unheard"),
    "hard and layers": _in_set("hard", "layers"),
    "short": _in_set("short"),
    **{
        f"slice {name}": _in_slice(name)
        for name in ("plain", "slow", "rubato", "dance", "disguised", "pairs", "layers")
    },
}


def main() -> None:
    """Print accuracy and difference for every group of clips, and whether the rule holds."""
    place, shipped, candidate = map(Path, sys.argv[1:])
    first, second = (_calibrated(folder) for folder in (shipped, candidate))
    both = align({"first": first, "second": second}).members
    first, second = both["first"], both["second"]
    tracks = {t.id: t for t in open_dataset(place, DataConfig(), first.classes).tracks}
    right = [p.scores.argmax(axis=1) == p.primary for p in (first, second)]
    print(f"| right, % | n | `{shipped.name}` | `{candidate.name}` | difference |\n|---|---:|---:|---:|---:|")
    found = {}
    for title, inside in GROUPS.items():
        at = np.array([inside(tracks[name]) for name in first.ids])
        if not at.any():
            continue
        a, b = (hits[at].astype(float) for hits in right)
        groups = [g for g, used in zip(first.groups, at, strict=True) if used]
        change = paired_bootstrap(_mean(a), _mean(b), groups)
        found[title] = change
        cells = [
            *(_share(x) for x in (a, b)),
            f"{100 * change.value:+.1f} [{100 * change.low:.1f}, {100 * change.high:.1f}]",
        ]
        print(f"| {title} | {len(a)} | {' | '.join(cells)} |")
    hard, ordinary = found["hard and layers"], found["ordinary"]
    holds = hard.low > 0 and ordinary.value >= LOSS and ordinary.low > LOWEST
    print(f"\nthe rule {'holds' if holds else 'does not hold'}")


def _calibrated(folder: Path) -> ClassPredictions:
    return Calibration.load(RunFolder(folder).calibration).apply(open_predictions(folder, "meter-test"))


def _mean(hits: np.ndarray) -> Callable[[np.ndarray | None], np.ndarray]:
    """The share of hits, of clips as they are or by (replicate, clip) weights."""
    return lambda w: np.asarray(hits.mean() if w is None else (w @ hits) / w.sum(axis=-1))


def _share(hits: np.ndarray) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
