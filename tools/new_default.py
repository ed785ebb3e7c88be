"""May a model become the default? The rule of docs/models.md, from predictions of the same validation clips;
and what test clips say of the two, which decides nothing.

    python tools/new_default.py data/meter runs/models/ensemble runs/models/ensemble-long
    python tools/new_default.py DEV runs/models/ensemble runs/models/ensemble-long --split=meter-dev-test

The first model ships, the second wants to. Each is a folder with its calibration.json and with
predictions/meter-val.csv and meter-test.csv, as tools/hear_members.py and `beatmeter ensemble --split
meter-test` write them. The second command asks no rule: it prints every metric of the two on another set,
calibrated, and the paired difference, intervals from a bootstrap over groups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from beatmeter.datasets import open_dataset
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.comparison.compare import compare
from beatmeter.evaluation.metrics import metric, wilson
from beatmeter.evaluation.metrics.significance import Difference, paired_bootstrap
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import ClassPredictions, Track
from beatmeter.settings import DataConfig

RULED, TOLD = "meter-val", "meter-test"  # the predictions that the rule is about, and those of the tables
LOSS = -0.01  # of accuracy on ordinary validation clips
Among = Callable[[Track], bool]
Hits = Float[np.ndarray, " item"]


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
    """Print whether the rule holds, and accuracy and difference for every group of test clips; or all
    metrics."""
    flags = [a for a in sys.argv[1:] if a.startswith("--split=")]
    split = flags[0].partition("=")[2] if flags else TOLD
    place, *folders = (Path(a) for a in sys.argv[1:] if a not in flags)
    both = _both(folders, split)
    first, second = both.values()
    if flags:
        print(f"{len(first)} items in {len(set(first.groups))} groups\n\n{_metrics(both)}")
        return
    tracks = {t.id: t for t in open_dataset(place, DataConfig(), first.classes).tracks}
    print(_rule(_both(folders, RULED), tracks))
    print(f"\n| right, % | n | {' | '.join(f'`{name}`' for name in both)} | difference |")
    print("|---|---:|---:|---:|---:|")
    hits = [right(p) for p in (first, second)]
    for title, inside in GROUPS.items():
        at = np.array([inside(tracks[name]) for name in first.ids])
        if not at.any():
            continue
        a, b = (h[at] for h in hits)
        moved = change(a, b, [g for g, used in zip(first.groups, at, strict=True) if used])
        print(f"| {title} | {len(a)} | {_share(a)} | {_share(b)} | {points(moved)} |")
    for title in ("ordinary", "hard and layers", "short"):
        at = np.flatnonzero([GROUPS[title](tracks[name]) for name in first.ids])
        if len(at):
            print(f"\n{title}, {len(at)} items\n\n{_metrics({n: p.take(at) for n, p in both.items()})}")


def _rule(both: Mapping[str, ClassPredictions], tracks: Mapping[str, Track]) -> str:
    """The rule on validation clips: a lower log loss, by an interval that leaves out 0; right no less often;
    of ordinary clips no more than LOSS fewer."""
    first, second = both.values()
    loss = metric("log_loss").value
    lower = paired_bootstrap(partial(loss, first), partial(loss, second), first.groups)
    a, b = right(first), right(second)
    ordinary = np.array([GROUPS["ordinary"](tracks[name]) for name in first.ids])
    every, usual = change(a, b, first.groups), float(b[ordinary].mean() - a[ordinary].mean())
    holds = lower.high < 0 and every.value >= 0 and usual >= LOSS
    return (
        f"{len(first)} validation clips: log loss {lower.value:+.4f} [{lower.low:.4f}, {lower.high:.4f}], "
        f"right {points(every)} points, {int(ordinary.sum())} ordinary ones {100 * usual:+.1f}: the rule "
        f"{'holds' if holds else 'does not hold'}"
    )


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


def _both(folders: Sequence[Path], split: str) -> Mapping[str, ClassPredictions]:
    """Calibrated predictions of the same items, by name."""
    calibrated = {
        f.name: Calibration.load(RunFolder(f).calibration).apply(open_predictions(f, split)) for f in folders
    }
    return align(calibrated).members


def right(p: ClassPredictions) -> Hits:
    """1 for every item whose highest score is that of its primary class."""
    return (p.scores.argmax(axis=1) == p.primary).astype(float)


def change(a: Hits, b: Hits, groups: Sequence[str]) -> Difference:
    """What the share of `b` has beyond that of `a`, by the paired bootstrap over groups."""
    return paired_bootstrap(_mean(a), _mean(b), groups)


def _mean(hits: Hits) -> Callable[[np.ndarray | None], np.ndarray]:
    """The share of hits, of clips as they are or by (replicate, clip) weights."""
    return lambda w: np.asarray(hits.mean() if w is None else (w @ hits) / w.sum(axis=-1))


def points(found: Difference) -> str:
    """In percent, with its interval."""
    return f"{100 * found.value:+.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _share(hits: Hits) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
