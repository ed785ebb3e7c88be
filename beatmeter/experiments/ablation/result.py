"""What came of a plan: every system in every metric, each against the baseline; as plain values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beatmeter.errors import RunError
from beatmeter.evaluation.comparison.compare import Comparison, MetricTest, SystemMetric, compare
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.ablation.plan import Plan
from beatmeter.learning.history import rank
from beatmeter.runtime.artifacts import require
from beatmeter.tasks import Choice, chosen_by, open_task

FINISHED = {"seed": int, "split": {"tracks": {"train": int}}}  # of run.json, what the table needs
ESTIMATE = ("mean", "low", "high", "spread")
TEST = ("difference", "difference_low", "difference_high", "p", "p_holm", "verdict")
COLUMNS = ("system", "metric", "seeds", *ESTIMATE, *TEST, "train_tracks", "best_epoch", "seconds")


@dataclass(frozen=True)
class Row:
    """One system: its metrics, the tests against the baseline (none for the baseline itself), which seeds
    stand behind it, and over them the mean of tracks trained on, of the epoch that was kept, and of seconds
    in training."""

    system: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, SystemMetric]
    tests: Mapping[str, MetricTest]
    train_tracks: float
    best_epoch: float
    seconds: float


@dataclass(frozen=True)
class Ablation:
    """The outcome of a plan on one split. `rows` are in the plan's order; `missing` says which cells failed,
    and why.

    Means, intervals and tests are those of `comparison`, see `beatmeter.evaluation.comparison.compare`: the
    bootstrap draws groups, and seeds where there are several.
    """

    plan: Plan
    split: str
    features: str
    rows: tuple[Row, ...]
    comparison: Comparison
    missing: Mapping[str, str]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those metrics of the plan that these items define, the headline first."""
        return tuple(self.rows[0].metrics)

    @property
    def items(self) -> int:
        return len(self.comparison.systems[0].runs[0])

    @property
    def groups(self) -> int:
        return len(set(self.comparison.systems[0].runs[0].groups))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the comparison, and what every system is."""
        return {
            "plan": self.plan.name,
            "title": self.plan.title,
            "question": self.plan.question,
            "split": self.split,
            "features": self.features,
            "baseline": self.plan.baseline,
            "missing": dict(self.missing),
            "systems": {
                r.system: {
                    "settings": self.plan.systems.get(
                        r.system, {"features": {"layers": r.system.removeprefix("layer ")}}
                    ),
                    "seeds": list(r.seeds),
                    "train_tracks": r.train_tracks,
                    "best_epoch": r.best_epoch,
                    "seconds": r.seconds,
                }
                for r in self.rows
            },
            **self.comparison.to_json(),
        }

    def to_csv(self) -> str:
        """One line for every system and metric."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for r in self.rows:
            for name, m in r.metrics.items():
                t = r.tests.get(name)
                tested = [t.difference, t.low, t.high, t.p, t.adjusted, t.verdict] if t else [""] * len(TEST)
                estimate = [m.mean.value, m.mean.low, m.mean.high, m.spread]
                writer.writerow(
                    [
                        r.system,
                        name,
                        len(r.seeds),
                        *estimate,
                        *tested,
                        r.train_tracks,
                        r.best_epoch,
                        r.seconds,
                    ]
                )
        return text.getvalue()


def conclude(
    plan: Plan,
    runs: Mapping[str, Sequence[RunFolder]],
    split: str,
    features: str = "",
    missing: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Ablation:
    """Compare the systems of a plan by the predictions of their finished runs. Systems without any are left
    out.

    Raises RunError when the baseline or all others have none.
    """
    trained = {name: folders for name, folders in runs.items() if folders}
    if plan.baseline not in trained or len(trained) < 2:
        what = (
            f"no run of the baseline {plan.baseline!r}"
            if plan.baseline not in trained
            else f"no run of any system but {plan.baseline!r}"
        )
        raise RunError(
            f"plan {plan.name}: {what} came to its end",
            "The reasons are above; run the same command again to go on.",
        )
    order = sorted(trained, key=lambda name: name != plan.baseline)
    predictions = {
        name: [read_predictions(folder.predictions(split)) for folder in trained[name]] for name in order
    }
    comparison = compare(predictions, plan.metrics, seed=seed)
    tests = {pair.second: {t.metric: t for t in pair.tests} for pair in comparison.pairs}
    rows = []
    for name, folders in trained.items():
        about, logs = [f.about() for f in folders], [f.read_log() for f in folders]
        for folder, told, log in zip(folders, about, logs, strict=True):
            require(told, FINISHED, str(folder.about_file))
            require(
                log,
                [{"seconds": float, "val": {"loss": float, _choice(folder).name: float}}],
                str(folder.epochs),
            )
        rows.append(
            Row(
                name,
                tuple(int(a["seed"]) for a in about),
                comparison.metrics[name],
                tests.get(name, {}),
                _mean([a["split"]["tracks"]["train"] for a in about]),
                _mean([_best_epoch(f) for f in folders]),
                _mean([sum(line["seconds"] for line in log) for log in logs]),
            )
        )
    return Ablation(plan, split, features, tuple(rows), comparison, dict(missing or {}))


def _choice(folder: RunFolder) -> Choice:
    """The figure that picked the epoch of a run."""
    config = folder.config()
    return chosen_by(open_task(config), config.training.select)


def _best_epoch(folder: RunFolder) -> int:
    """The epoch that was kept."""
    choice = _choice(folder)
    return int(max(folder.read_log(), key=lambda line: rank(line, choice))["epoch"])


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2)
