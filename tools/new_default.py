"""May a model become the default? The rule of docs/models.md, from predictions of the same test clips.

    python tools/new_default.py data/meter runs/models/ensemble runs/models/ensemble-long
    python tools/new_default.py DEV runs/models/ensemble runs/models/ensemble-long --split=meter-dev-test

The first model ships, the second wants to. Each is a folder with predictions/meter-test.csv, as
tools/hear_members.py and `beatmeter ensemble --split meter-test` write them, and with its calibration.json.
The second command asks no rule: it prints every metric of the two on another set, calibrated, and the paired
difference, intervals from a bootstrap over groups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from beatmeter.datasets import open_dataset
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.comparison.compare import compare
from beatmeter.evaluation.metrics import metric, wilson
from beatmeter.evaluation.metrics.significance import paired_bootstrap
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import ClassPredictions, Track
from beatmeter.settings import DataConfig

RULED = "meter-test"  # the predictions that the rule is about
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


METRICS = (
    "accuracy",
    "balanced_accuracy",
    "single_accuracy",
    "single_balanced_accuracy",
    "three_against_four",
    "selective_accuracy",
    "map",
    "primary_ece",
    "pair_recall",
)


def main() -> None:
    """Print accuracy and difference for every group of clips, and whether the rule holds; or all metrics."""
    flags = [a for a in sys.argv[1:] if a.startswith("--split=")]
    split = flags[0].partition("=")[2] if flags else RULED
    place, shipped, candidate = (Path(a) for a in sys.argv[1:] if a not in flags)
    both = align({f.name: _calibrated(f, split) for f in (shipped, candidate)}).members
    first, second = both[shipped.name], both[candidate.name]
    if split != RULED:
        print(f"{len(first)} items in {len(set(first.groups))} groups\n\n{_metrics(both)}")
        return
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
    for title in ("ordinary", "hard and layers", "short"):
        at = np.flatnonzero([GROUPS[title](tracks[name]) for name in first.ids])
        if len(at):
            print(f"\n{title}, {len(at)} items\n\n{_metrics({n: p.take(at) for n, p in both.items()})}")


def _metrics(both: Mapping[str, ClassPredictions]) -> str:
    """Every metric of two models on the same items, and the second minus the first."""
    found = compare({name: [p] for name, p in both.items()}, METRICS)
    lines = [f"| metric | {' | '.join(f'`{n}`' for n in both)} | difference |", "|---|---:|---:|---:|"]
    for test in found.pairs[0].tests:
        cells = [found.metrics[n][test.metric].mean for n in both]
        lines.append(
            f"| {metric(test.metric).title} | "
            + " | ".join(f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]" for e in cells)
            + f" | {100 * test.difference:+.1f} [{100 * test.low:.1f}, {100 * test.high:.1f}] |"
        )
    return "\n".join(lines)


def _calibrated(folder: Path, split: str) -> ClassPredictions:
    return Calibration.load(RunFolder(folder).calibration).apply(open_predictions(folder, split))


def _mean(hits: np.ndarray) -> Callable[[np.ndarray | None], np.ndarray]:
    """The share of hits, of clips as they are or by (replicate, clip) weights."""
    return lambda w: np.asarray(hits.mean() if w is None else (w @ hits) / w.sum(axis=-1))


def _share(hits: np.ndarray) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
