"""Which layer finds a work again, and what does fusing layers add? One table of linear maps in closed form
and of trained heads, on the same works, as Markdown.

    python tools/fusion_table.py --out runs/fusion --works 150

Synthetic works in four versions each; every pooling of the embedded backbone by itself. *Closed form*: a
layer, their mean or all side by side, raw and whitened within the training works (its ridge from halves of
them). *Trained*: an affine head by SupCon over `head.mix`, the mean over seeds. All are judged on the test
works, which no map has seen; 95 % intervals are over works, and the last column is paired with the whitened
mean of layers. What is done already in `--out` is kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np

from beatmeter.datasets import open_dataset
from beatmeter.datasets.columns import text_of
from beatmeter.datasets.splits import audio_keys
from beatmeter.evaluation.metrics.intervals import REPLICATES, Estimate, bootstrap_weights, group_bootstrap
from beatmeter.evaluation.metrics.retrieval import average_precision, hit_at, rank
from beatmeter.evaluation.metrics.significance import Difference
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.probes import fused
from beatmeter.experiments.probes.reading import layers_of
from beatmeter.features.landmarks import whitened
from beatmeter.learning.landmarks import RIDGES, held_out_precision
from beatmeter.runtime.artifacts import write_json
from beatmeter.schema import as_embeddings
from beatmeter.settings import METERS, DataConfig
from beatmeter.store import Store

VERSIONS, POOLINGS, MIXES = 4, ("stats", "harmony"), ("softmax", "mean", "one", "concat")
SETTINGS = {
    "task.name": "similarity",
    "features.backbone": "embedded",
    "features.poolings": ",".join(POOLINGS),
    "head.map": "affine",
    "training.epochs": 60,
    "training.patience": 15,
    "training.batch": 64,
    "training.accumulation": 2,
    "training.head_lr": 1e-3,
    "training.weight_decay": 1e-2,
}


def call(*words: object) -> None:
    """A command of the project; its end if it fails."""
    subprocess.run([sys.executable, "-m", "beatmeter", *map(str, words)], check=True)


class Table:
    """Rows of average precision and hits by way, over the same queries."""

    def __init__(self, works: Sequence[str]) -> None:
        self.works = list(works)
        self.rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, name: str, likenesses: Sequence[np.ndarray]) -> None:
        """One way by its (item, item) likenesses: the mean over them."""
        rankings = [rank(likeness, self.works) for likeness in likenesses]
        self.rows[name] = (
            np.mean([average_precision(r) for r in rankings], axis=0),
            np.mean([hit_at(r, 1) for r in rankings], axis=0),
        )

    def text(self, beside: str) -> str:
        """Markdown; differences are to the row `beside`."""
        lines = ["| way | mAP | hit@1 | mAP above the whitened mean |", "|---|---|---|---|"]
        for name, (precision, hits) in self.rows.items():
            apart = precision - self.rows[beside][0]
            draws = [w @ apart / w.sum(axis=1) for w in bootstrap_weights(self.works, REPLICATES, 0)]
            d = Difference.of(float(apart.mean()), np.concatenate(draws))
            above = "" if name == beside else f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
            lines.append(f"| {name} | {self._cell(precision)} | {self._cell(hits)} | {above} |")
        return "\n".join(lines)

    def _cell(self, values: np.ndarray) -> str:
        def mean(weights: np.ndarray | None) -> np.ndarray:
            w = np.ones(len(values)) if weights is None else weights
            found: np.ndarray = w @ values / w.sum(axis=-1)
            return found

        e: Estimate = group_bootstrap(mean, self.works)
        return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def unit(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found


def closed_forms(
    table: Table, layers: Mapping[str, np.ndarray], works: Sequence[str], train: np.ndarray, test: np.ndarray
) -> None:
    """Every layer, their mean and all of them, raw and whitened within works."""
    scaled = {
        name: (x - x[train].mean(axis=0)) / np.maximum(x[train].std(axis=0), 1e-6)
        for name, x in layers.items()
    }
    every = np.concatenate([*scaled.values()], axis=1)
    sets = {**scaled, "mean of layers": fused(scaled), "all layers": every}
    known = [works[i] for i in train]
    half = np.unique(known, return_inverse=True)[1] % 2 == 0
    for name, x in sets.items():
        x = x.astype(np.float64)
        raw = unit(x[test])
        table.add(f"{name}, raw", [raw @ raw.T])
        ridge = max(RIDGES, key=lambda r, x=x: held_out_precision(x[train], known, half, r))
        model = whitened(x[train], known, ridge)
        vectors = unit((x[test] - model.mean) / model.deviation @ model.matrix)
        table.add(f"{name}, whitened", [vectors @ vectors.T])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--works", type=int, default=150)
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    out, music, cache = options.out, options.out / "works", options.out / "cache"
    many = ("--works", options.works, "--versions", VERSIONS)
    call("data", "works", music, *many, "--seed", 31, "--jobs", options.jobs)
    sets = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    features = [word for word in sets if word.startswith("features.")]
    call("extract", music, "--cache", cache, *[w for name in features for w in ("--set", name)])
    for pooling in POOLINGS:
        for mix in MIXES:
            place = out / f"{pooling}-{mix}"
            head = ("--set", f"head.poolings={pooling}", "--set", f"head.mix={mix}")
            where = ("--seeds", options.seeds, "--cache", cache, "--out", place)
            call("train", "--frozen", music, *sets, *head, *where)

    tracks = open_dataset(music, DataConfig(path=str(music)), METERS, labelled=False).tracks
    store = next(p for p in sorted(cache.iterdir()) if p.is_dir() and p.name.startswith("embedded"))
    keys, _ = audio_keys(tracks, cache, options.jobs)
    works = [text_of(t, "work") for t in tracks]
    snapshot, ids = Store.open(store).snapshot(), [t.id for t in tracks]
    first = as_embeddings(read_records(runs_of(out / f"{POOLINGS[0]}-{MIXES[0]}")[0].predictions("test")))
    test = np.array([ids.index(name) for name in first.ids])
    train = np.setdiff1d(np.arange(len(ids)), test)
    said = {}
    for pooling in POOLINGS:
        table = Table([works[i] for i in test])
        layers = layers_of(snapshot, [keys[i] for i in ids], pooling)
        closed_forms(table, layers, works, train, test)
        for mix in MIXES:
            runs = runs_of(out / f"{pooling}-{mix}")
            vectors = [as_embeddings(read_records(run.predictions("test"))) for run in runs]
            assert all(v.ids == first.ids for v in vectors)
            table.add(f"trained, {mix}", [v.unit @ v.unit.T for v in vectors])
            if mix == "softmax":
                weights = [run.read_log()[-1]["layer_weights"][pooling] for run in runs]
                said[pooling] = np.round(weights, 3).tolist()
        chance = np.random.default_rng(0).normal(size=(len(test), 64))
        table.add("chance", [unit(chance) @ unit(chance).T])
        print(f"\n{pooling}: {len(test)} queries of {len(set(table.works))} works; {len(train)} others\n")
        print(table.text("mean of layers, whitened"))
        if pooling in said:
            print("\nlearned weights of layers, by seed:", said[pooling])
    write_json(out / "weights.json", said)


def runs_of(folder: Path) -> list[RunFolder]:
    """The runs of all seeds."""
    return [RunFolder(p.parent) for p in sorted(folder.glob("*/config.toml"))]


if __name__ == "__main__":
    main()
