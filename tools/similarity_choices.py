"""What harmony search is made of, chosen on synthetic works alone.

    python tools/similarity_choices.py --out runs/similarity-choices --works 120 --train 200

Five choices, in this order, each with what was chosen before: what loudness is relative to, how alignment
counts, what a vector is made of, what a second look divides by, and what all pairs are divided by where all
of them are aligned. Each is judged by mean average precision
over the versions of `--works` works that nothing was learned from; maps are learned from `--train` others.
The rule, made before any number was seen: the first variant of a list is what ships, and it stays unless
another is better by an interval (95 %, paired bootstrap over works) that leaves out 0; of those that are,
the best one is taken. Clips and tables are kept in `--out`: a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch

from beatmeter.cli.options import TERMINAL
from beatmeter.datasets.synth.versions import render_version
from beatmeter.evaluation.metrics.intervals import bootstrap_weights
from beatmeter.evaluation.metrics.retrieval import average_precision, hit_at, rank
from beatmeter.evaluation.metrics.significance import Difference
from beatmeter.features.alignment import RULE, Rule, ready, scores
from beatmeter.features.backbones.spectral import SpectralBackbone
from beatmeter.features.harmony import SpectralClasses
from beatmeter.features.landmarks import AVERAGE, levelled, whitened
from beatmeter.features.listening import TrackListener
from beatmeter.features.pooling import Encoder, feature_spec
from beatmeter.learning.landmarks import RIDGES, held_out_precision
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.parallel import ordered
from beatmeter.settings import SPECTRAL, FeatureConfig

SECONDS, VERSIONS, CANDIDATES, REPLICATES = 20.0, 4, 50, 2000
TEST_SEED, TRAIN_SEED, LANDMARK_SEED = 1011 << 32, 1012 << 32, 1013 << 32  # no model has heard these works


class LoudestOfFrame(SpectralClasses):
    def reference(self, logs: torch.Tensor) -> torch.Tensor:
        return logs.amax(dim=2, keepdim=True)


class TypicalFrame(SpectralClasses):
    def reference(self, logs: torch.Tensor) -> torch.Tensor:
        return logs.amax(dim=2, keepdim=True).median(dim=1, keepdim=True).values


class MeanOfFrame(SpectralClasses):
    def reference(self, logs: torch.Tensor) -> torch.Tensor:
        return logs.mean(dim=2, keepdim=True) + 2.5


REFERENCES: dict[str, type[SpectralClasses]] = {
    "loudest of the chunk": SpectralClasses,
    "loudest of the frame": LoudestOfFrame,
    "typical loudest of the chunk": TypicalFrame,
    "mean of the frame": MeanOfFrame,
}
RULES = {
    "fits 1/2, misses 2": RULE,
    "fits 0, misses 2": replace(RULE, fits=0.0),
    "fits 1, misses 1": replace(RULE, fits=1.0, misses=1.0),
    "fits 1, misses 2": replace(RULE, fits=1.0),
    "fits 2, misses 2": replace(RULE, fits=2.0),
    "fits 1/2, misses 4": replace(RULE, misses=4.0),
    "threshold .25": replace(RULE, threshold=0.25),
    "threshold .45": replace(RULE, threshold=0.45),
    "threshold .55": replace(RULE, threshold=0.55),
    "threshold .65": replace(RULE, threshold=0.65),
}
Heard = dict[str, np.ndarray]


def hear(names: Sequence[str], clip: tuple[int, int]) -> Heard:
    """Chroma of a clip by reference, and its 2D Fourier magnitudes."""
    torch.set_num_threads(1)
    wave = render_version(*clip, seconds=SECONDS).clip.audio
    found: Heard = {}
    for name in names:
        backbone = SpectralBackbone()
        backbone.pitch_classes = partial(REFERENCES[name], backbone.bands + 3)  # type: ignore[method-assign]
        poolings = ("chroma", "harmony") if name == names[0] else ("chroma",)
        spec = feature_spec(backbone, FeatureConfig(backbone=SPECTRAL, poolings=poolings), "float32")
        with torch.inference_mode():
            listener = TrackListener({"": Encoder(backbone, spec).eval()}, len(wave), torch.device("cpu"))
            listener.push(wave)
            features = listener.finish()[""]
        found[name] = features["chroma"][0, :, 0].numpy()
        if "harmony" in features:
            found["harmony"] = features["harmony"][0, 0].flatten().numpy()
    return found


def kept(file: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What `make` gives, from the file where it was made before."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file.with_suffix(".new.npz"), **make())
        file.with_suffix(".new.npz").rename(file)
    with np.load(file) as loaded:
        return {name: loaded[name] for name in loaded.files}


def clips_of(
    out: Path, label: str, clips: Sequence[tuple[int, int]], names: Sequence[str], jobs: int
) -> dict[str, np.ndarray]:
    """(clip, row, 12) by reference and (clip, 384) of all clips."""

    def make() -> Mapping[str, np.ndarray]:
        made: list[Heard] = []
        with TERMINAL.track(label, len(clips)) as tick:
            for heard in ordered(partial(hear, names), clips, jobs):
                made.append(heard)  # type: ignore[arg-type]
                tick(1)
        return {name: np.stack([one[name] for one in made]) for name in made[0]}

    return kept(out / f"{label}.npz", make)


def every_pair(chroma: np.ndarray, rule: Rule) -> np.ndarray:
    """(clip, clip) alignment scores at 4 Hz; an alignment is the same from either side."""
    pieces = [ready(c) for c in chroma]
    found = np.zeros((len(pieces), len(pieces)))
    for i in range(len(pieces)):
        found[i, i:] = scores(pieces[i], pieces[i:], rule)
    return np.maximum(found, found.T)


def standard(pairs: np.ndarray) -> np.ndarray:
    """Every score in deviations from the mean of either clip's scores with all others, added."""
    others = np.where(np.eye(len(pairs), dtype=bool), np.nan, pairs)
    mean, spread = np.nanmean(others, axis=1), np.nanstd(others, axis=1)
    result: np.ndarray = (pairs - mean) / spread + (pairs - mean[:, None]) / spread[:, None]
    return result


class Choice:
    """Variants of one thing, judged by the same queries; the first is what ships."""

    def __init__(self, what: str, works: Sequence[str]) -> None:
        self.what, self.works = what, works
        self.precision: dict[str, np.ndarray] = {}
        self.lines: list[dict[str, Any]] = []

    def add(self, name: str, likeness: np.ndarray) -> None:
        """One variant by its (item, item) likeness."""
        ranking = rank(likeness, self.works)
        found = average_precision(ranking)
        self.precision[name] = found
        first = next(iter(self.precision.values()))
        draws = np.concatenate(
            [w @ (found - first) / w.sum(axis=1) for w in bootstrap_weights(self.works, REPLICATES, 0)]
        )
        apart = Difference.of(float((found - first).mean()), draws)
        self.lines.append(
            {
                "choice": self.what,
                "variant": name,
                "mAP": round(float(found.mean()), 4),
                "hit@1": round(float(hit_at(ranking, 1).mean()), 4),
                "against what ships": [round(x, 4) for x in (apart.value, apart.low, apart.high)],
            }
        )
        print(self.lines[-1], flush=True)

    @property
    def taken(self) -> str:
        """By the rule."""
        first = next(iter(self.precision))
        better = [line for line in self.lines[1:] if line["against what ships"][1] > 0]
        return str(max(better, key=lambda line: line["mAP"])["variant"]) if better else first


def learned_map(train: np.ndarray, works: Sequence[str], test: np.ndarray) -> np.ndarray:
    """(item, dim) unit vectors of `test` by a whitening within works, its ridge from halves of `train`."""
    half = np.arange(len(works)) // VERSIONS % 2 == 0
    ridge = max(RIDGES, key=lambda r: held_out_precision(train, works, half, r))
    model = whitened(train, works, ridge)
    found = ((test - model.mean) / model.deviation) @ model.matrix
    result: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return result


def of_variance_1(likeness: np.ndarray) -> np.ndarray:
    """Divided by the standard deviation over all pairs of two."""
    found: np.ndarray = likeness / likeness[~np.eye(len(likeness), dtype=bool)].std()
    return found


def second_looks(
    pairs: np.ndarray, level: np.ndarray, cosines: np.ndarray, candidates: int = CANDIDATES
) -> dict[str, np.ndarray]:
    """(item, item) scores of the candidates of each query; the rest stay behind them in their order."""
    n = len(pairs)
    mean, spread = level.mean(axis=1) * AVERAGE, level.std(axis=1) * AVERAGE
    own = np.sqrt(np.diag(pairs))
    z = (pairs - mean) / spread + (pairs - mean[:, None]) / spread[:, None]
    near = np.argsort(-np.where(np.eye(n, dtype=bool), -np.inf, cosines), axis=1)[:, :candidates]
    rows = np.arange(n)[:, None]

    def among(x: np.ndarray) -> np.ndarray:
        of = x[rows, near]
        return (x - of.mean(axis=1, keepdims=True)) / of.std(axis=1, keepdims=True)

    found = {
        "landmarks": z,
        "raw": pairs,
        "landmarks, mean alone": pairs - mean - mean[:, None],
        "own score": pairs / own / own[:, None],
        "landmarks and half the cosine": among(z) + 0.5 * among(cosines),
        "raw and half the cosine": among(pairs) + 0.5 * among(cosines),
    }
    looks = {}
    for name, values in found.items():
        looked = cosines - 1e6
        looked[rows, near] = values[rows, near]
        looks[name] = looked
    return looks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/similarity-choices"))
    parser.add_argument("--works", type=int, default=120)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--landmarks", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    out, names = options.out, list(REFERENCES)
    tests = [(TEST_SEED + w, v) for w in range(options.works) for v in range(VERSIONS)]
    works = [str(w) for w, _ in tests]
    heard = clips_of(out, f"test-{options.works}", tests, names, options.jobs)
    first = Choice("loudness is relative to", works)
    for name in names:
        first.add(name, standard(every_pair(heard[name], RULE)))
    reference = first.taken
    second = Choice("alignment counts", works)
    for name, rule in RULES.items():
        second.add(name, standard(every_pair(heard[reference], rule)))
    rule = RULES[second.taken]

    trained = [(TRAIN_SEED + w, v) for w in range(options.train) for v in range(VERSIONS)]
    train_works = [str(w) for w, _ in trained]
    learn = clips_of(out, f"train-{options.train}", trained, [reference], options.jobs)
    pieces = {}
    for manner, version in (("as written", lambda n: 0), ("in four manners", lambda n: n % VERSIONS)):
        clips = [(LANDMARK_SEED + n, version(n)) for n in range(options.landmarks)]
        made = clips_of(out, f"landmarks {manner}", clips, [reference], options.jobs)
        pieces[manner] = [ready(c, AVERAGE) for c in made[reference]]

    def aligned(chroma: np.ndarray, manner: str) -> np.ndarray:
        return np.stack([scores(ready(c, AVERAGE), pieces[manner], rule) for c in chroma])

    tables = kept(
        out / "landmark-scores.npz",
        lambda: {
            f"{split} {manner}": aligned(of, manner)
            for split, of in (("train", learn[reference]), ("test", heard[reference]))
            for manner in pieces
        },
    )
    third = Choice("a vector is", works)
    cosines = {}

    def vectors(name: str, train: np.ndarray, test: np.ndarray) -> None:
        unit = learned_map(train, train_works, test)
        cosines[name] = unit @ unit.T
        third.add(name, cosines[name])

    for manner in pieces:
        train, test = (levelled(tables[f"{split} {manner}"]) for split in ("train", "test"))
        vectors(f"{options.landmarks} landmarks {manner}", train, test)
    for few in (options.landmarks // 4, options.landmarks // 2):
        train, test = (levelled(tables[f"{split} as written"][:, :few]) for split in ("train", "test"))
        vectors(f"{few} landmarks as written", train, test)
    if reference == names[0]:
        vectors("2D Fourier magnitudes", learn["harmony"], heard["harmony"])
    best = third.taken
    manner = "in four manners" if best.endswith("manners") else "as written"
    fourth = Choice("a second look is", works)
    looks = second_looks(every_pair(heard[reference], rule), tables[f"test {manner}"], cosines[best])
    for name, look in looks.items():
        fourth.add(name, look)
    fifth = Choice("all pairs are standardised by", works)
    pairs = every_pair(heard[reference], rule)
    own = second_looks(pairs, tables[f"test {manner}"], cosines[best], len(works) - 1)["landmarks"]
    for name, look in {
        "landmarks": own,
        "all others": standard(pairs),
        "both": of_variance_1(own) + of_variance_1(standard(pairs)),
        "nothing": pairs,
    }.items():
        fifth.add(name, look)
    choices = [first, second, third, fourth, fifth]
    write_json(
        out / "choices.json",
        {
            "works": options.works,
            "trained_on": options.train,
            "taken": {c.what: c.taken for c in choices},
            "lines": [line for c in choices for line in c.lines],
        },
    )
    for c in choices:
        print(f"{c.what}: {c.taken}")


if __name__ == "__main__":
    main()
