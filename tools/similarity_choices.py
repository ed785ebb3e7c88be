"""What harmony search is made of, chosen on synthetic works alone.

    python tools/similarity_choices.py --out runs/similarity-choices --works 120 --train 200

Five choices, in this order, each with what was chosen before: what loudness is relative to, how alignment
counts, what a vector is made of, what a second look divides by, and what all pairs are divided by where all
of them are aligned. Each is judged by mean average precision over the versions of `--works` works that
nothing was learned from; maps are learned from `--train` others. The rule, made before any number was seen:
the first variant of a list is what shipped then, and it stays unless another is better by an interval (95 %,
paired bootstrap over works) that leaves out 0; of those that are, the best one is taken. A row of numbers
whose last one is the best goes on until it falls. Clips and tables are kept in `--out`: a run that is stopped
goes on.
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
from scipy.stats import norm

from beatmeter.cli.options import TERMINAL
from beatmeter.datasets.synth.versions import render_version
from beatmeter.evaluation.metrics.intervals import bootstrap_weights
from beatmeter.evaluation.metrics.retrieval import average_precision, hit_at, rank
from beatmeter.evaluation.metrics.significance import Difference
from beatmeter.features.alignment import Rule, ready, scores
from beatmeter.features.backbones.spectral import SpectralBackbone
from beatmeter.features.harmony import SpectralClasses
from beatmeter.features.landmarks import AVERAGE, FLOOR, levelled, whitened
from beatmeter.features.listening import TrackListener
from beatmeter.features.pooling import Encoder, feature_spec
from beatmeter.learning.landmarks import RIDGES, held_out_precision
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.parallel import ordered
from beatmeter.settings import SPECTRAL, FeatureConfig

SECONDS, VERSIONS, CANDIDATES, REPLICATES = 20.0, 4, 50, 2000
WRITTEN, MANNERS = "as written", "in four manners"
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
BEFORE = Rule(threshold=0.35)  # what shipped before it was chosen here
RULES = {
    "fits 1/2, misses 2": BEFORE,
    "fits 0, misses 2": replace(BEFORE, fits=0.0),
    "fits 1, misses 1": replace(BEFORE, fits=1.0, misses=1.0),
    "fits 1, misses 2": replace(BEFORE, fits=1.0),
    "fits 2, misses 2": replace(BEFORE, fits=2.0),
    "fits 1/2, misses 4": replace(BEFORE, misses=4.0),
    "threshold .25": replace(BEFORE, threshold=0.25),
    "threshold .45": replace(BEFORE, threshold=0.45),
    "threshold .55": replace(BEFORE, threshold=0.55),
    "threshold .65": replace(BEFORE, threshold=0.65),
    "threshold .75": replace(BEFORE, threshold=0.75),
    "threshold .80": replace(BEFORE, threshold=0.80),
    "threshold .85": replace(BEFORE, threshold=0.85),
    "threshold .90": replace(BEFORE, threshold=0.90),
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


def by_others(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(clip, clip) scores in deviations from the mean of the query's scores with all others, and of the
    other clip's."""
    others = np.where(np.eye(len(pairs), dtype=bool), np.nan, pairs)
    mean, spread = np.nanmean(others, axis=1), np.nanstd(others, axis=1)
    return (pairs - mean[:, None]) / spread[:, None], (pairs - mean) / spread


def standard(pairs: np.ndarray) -> np.ndarray:
    """Every score in deviations from the mean of either clip's scores with all others, added."""
    result: np.ndarray = np.add(*by_others(pairs))
    return result


def by_landmarks(pairs: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `by_others`, by the (clip, landmark) scores `level` with landmarks."""
    mean, spread = level.mean(axis=1), level.std(axis=1)
    return (pairs - mean[:, None]) / spread[:, None], (pairs - mean) / spread


def proximity(pairs: np.ndarray) -> np.ndarray:
    """How sure both clips are that their score is above chance: the logarithm of the mutual proximity of
    Schnitzer et al. (2012) with normal distributions."""
    result: np.ndarray = sum(norm.logcdf(z) for z in by_others(pairs))
    return result


class Choice:
    """Variants of one thing, judged by the same queries; the first is what shipped before."""

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
                "against the first": [round(x, 4) for x in (apart.value, apart.low, apart.high)],
            }
        )
        print(self.lines[-1], flush=True)

    @property
    def taken(self) -> str:
        """By the rule."""
        first = next(iter(self.precision))
        better = [line for line in self.lines[1:] if line["against the first"][1] > 0]
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


def second_looks(pairs: np.ndarray, level: np.ndarray, cosines: np.ndarray) -> dict[str, np.ndarray]:
    """(item, item) scores of the CANDIDATES nearest of each query; the rest stay behind them in their
    order. `level` (item, landmark) are scores at 2 Hz."""
    n = len(pairs)
    own = np.sqrt(np.diag(pairs))
    near = np.argsort(-np.where(np.eye(n, dtype=bool), -np.inf, cosines), axis=1)[:, :CANDIDATES]
    rows = np.arange(n)[:, None]

    def among(x: np.ndarray) -> np.ndarray:
        of = x[rows, near]
        return (x - of.mean(axis=1, keepdims=True)) / of.std(axis=1, keepdims=True)

    asked, there = by_landmarks(pairs, AVERAGE * level)
    found = {
        "landmarks": asked + there,
        "raw": pairs,
        "landmarks, mean alone": pairs - AVERAGE * (level.mean(axis=1) + level.mean(axis=1)[:, None]),
        "own score": pairs / own / own[:, None],
        "landmarks in logarithms": np.add(*by_landmarks(logs(pairs), logs(AVERAGE * level))),
        "the query by its candidates, they by landmarks": among(pairs) + there,
        "landmarks and half the cosine": among(asked + there) + 0.5 * among(cosines),
        "raw and half the cosine": among(pairs) + 0.5 * among(cosines),
    }
    looks = {}
    for name, values in found.items():
        looked = cosines - 1e6
        looked[rows, near] = values[rows, near]
        looks[name] = looked
    return looks


def all_looks(pairs: np.ndarray, level: np.ndarray) -> dict[str, np.ndarray]:
    """(item, item) scores where all pairs are aligned. `level` (item, landmark) are scores at 2 Hz."""
    asked, there = by_landmarks(pairs, AVERAGE * level)
    query, _ = by_others(pairs)
    return {
        "landmarks": asked + there,
        "all others": standard(pairs),
        "both": of_variance_1(asked + there) + of_variance_1(standard(pairs)),
        "the query by all others, they by landmarks": query + there,
        "landmarks in logarithms": np.add(*by_landmarks(logs(pairs), logs(AVERAGE * level))),
        "all others in logarithms": standard(logs(pairs)),
        "mutual proximity": proximity(pairs),
        "nothing": pairs,
    }


def logs(scores_: np.ndarray) -> np.ndarray:
    """log(score + 0.5)."""
    found: np.ndarray = np.log(scores_ + FLOOR)
    return found


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

    def pairs_by(reference: str, rule: str) -> np.ndarray:
        file = out / f"pairs-{options.works}-{names.index(reference)}-{list(RULES).index(rule)}.npz"
        return kept(file, lambda: {"pairs": every_pair(heard[reference], RULES[rule])})["pairs"]

    shipped = next(iter(RULES))
    first = Choice("loudness is relative to", works)
    for name in names:
        first.add(name, standard(pairs_by(name, shipped)))
    reference = first.taken
    second = Choice("alignment counts", works)
    for name in RULES:
        second.add(name, standard(pairs_by(reference, name)))
    rule = second.taken

    trained = [(TRAIN_SEED + w, v) for w in range(options.train) for v in range(VERSIONS)]
    train_works = [str(w) for w, _ in trained]
    learn = clips_of(out, f"train-{options.train}", trained, [reference], options.jobs)
    pieces = {}
    for manner, version in ((WRITTEN, lambda n: 0), (MANNERS, lambda n: n % VERSIONS)):
        clips = [(LANDMARK_SEED + n, version(n)) for n in range(options.landmarks)]
        made = clips_of(out, f"landmarks {manner}", clips, [reference], options.jobs)
        pieces[manner] = [ready(c, AVERAGE) for c in made[reference]]

    def aligned(manner: str, by: str) -> tuple[np.ndarray, np.ndarray]:
        """(clip, landmark) scores at 2 Hz of what maps are learned from, and of what judges them."""

        def make() -> dict[str, np.ndarray]:
            return {
                split: np.stack([scores(ready(c, AVERAGE), pieces[manner], RULES[by]) for c in of])
                for split, of in (("train", learn[reference]), ("test", heard[reference]))
            }

        file = out / f"landmark-scores-{names.index(reference)}-{list(RULES).index(by)} {manner}.npz"
        found = kept(file, make)
        return found["train"], found["test"]

    third = Choice("a vector is", works)
    cosines, levels = {}, {}

    def vectors(name: str, train: np.ndarray, test: np.ndarray, level: np.ndarray) -> None:
        unit = learned_map(train, train_works, test)
        cosines[name], levels[name] = unit @ unit.T, level
        third.add(name, cosines[name])

    many = options.landmarks
    ways = [(WRITTEN, shipped, many), (WRITTEN, rule, many), (MANNERS, rule, many)]
    ways += [(WRITTEN, rule, many // 4), (WRITTEN, rule, many // 2)]
    for manner, by, few in dict.fromkeys(ways):
        train, test = aligned(manner, by)
        pair = levelled(train[:, :few]), levelled(test[:, :few])
        vectors(f"{few} landmarks {manner}, {by}", *pair, test)
    if reference == names[0]:
        vectors("2D Fourier magnitudes", learn["harmony"], heard["harmony"], aligned(WRITTEN, rule)[1])
    pairs, level = pairs_by(reference, rule), levels[third.taken]
    fourth = Choice("a second look is", works)
    for name, look in second_looks(pairs, level, cosines[third.taken]).items():
        fourth.add(name, look)
    fifth = Choice("all pairs are standardised by", works)
    for name, look in all_looks(pairs, level).items():
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
