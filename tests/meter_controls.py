"""Synthetic predictions with a known cause, as logistic models of labels: what the diagnostics must tell
apart."""

from __future__ import annotations

import numpy as np

from beatmeter.schema import ClassPredictions

CLASSES = ("3", "4", "5", "7", "9", "11")
SHARES = (0.30, 0.30, 0.12, 0.12, 0.08, 0.08)
PAIRS = ((0, 1), (2, 3), (0, 3), (1, 2))  # meters that sound together


def labels(
    random: np.random.Generator, songs: int, several: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets (item, class), primary (item,) and song (item,) for songs of one to three segments, `several`
    of them with two meters."""
    song = np.repeat(np.arange(songs), random.integers(1, 4, songs))
    primary = random.choice(len(CLASSES), songs, p=SHARES)
    targets = np.eye(len(CLASSES))[primary]
    for s in np.flatnonzero(random.random(songs) < several):
        i, j = PAIRS[random.integers(len(PAIRS))]
        primary[s] = i
        targets[s] = 0
        targets[s, i], targets[s, j] = 1.0, 0.7
    return targets[song], primary[song], song


def build(
    scores: np.ndarray, targets: np.ndarray, primary: np.ndarray, song: np.ndarray, split: str = "test"
) -> ClassPredictions:
    """Predictions of segments, grouped by song."""
    return ClassPredictions(
        classes=CLASSES,
        ids=tuple(f"{split}/{s}_{i}" for i, s in enumerate(song)),
        groups=tuple(f"{split} song {s}" for s in song),
        sources=tuple(("FMA", "MAG")[s % 2] for s in song),
        split=split,
        targets=targets,
        scores=scores,
        primary=primary.astype(np.int64),
        times=np.full((len(song), 2), np.nan),
    )


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def logits(random: np.random.Generator, present: np.ndarray) -> np.ndarray:
    """Present classes around 2, absent ones around -2.5, with spread."""
    return np.where(present, random.normal(2.0, 1.0, present.shape), random.normal(-2.5, 0.8, present.shape))


def polymetric(seed: int, songs: int = 250, split: str = "test") -> ClassPredictions:
    """A model that hears every meter that is there, in music of which a fifth has two."""
    random = np.random.default_rng(seed)
    targets, primary, song = labels(random, songs, 0.2)
    return build(sigmoid(logits(random, targets > 0)), targets, primary, song, split)


def leaky(seed: int, songs: int = 250, split: str = "test", strength: float = 2.9) -> ClassPredictions:
    """A model whose output for one class of a pair follows the other, whatever the music: it has learned that
    labels come together. `strength` is added to the logit of the follower (2.9 takes it from 0.08 to 0.6)."""
    random = np.random.default_rng(seed)
    targets, primary, song = labels(random, songs, 0.2)
    z = logits(random, targets > 0)
    for i, j in PAIRS[:2]:
        mine = targets[:, i] > 0
        theirs = targets[:, j] > 0
        z[mine & ~theirs, j] += strength
        z[theirs & ~mine, i] += strength
    return build(sigmoid(z), targets, primary, song, split)


def selective(seed: int, songs: int = 250, split: str = "test") -> ClassPredictions:
    """A good model of music that has one meter each."""
    random = np.random.default_rng(seed)
    targets, primary, song = labels(random, songs, 0.0)
    return build(sigmoid(logits(random, targets > 0)), targets, primary, song, split)


def confused(seed: int, songs: int = 250, split: str = "test") -> ClassPredictions:
    """A model that hardly hears anything: all outputs are near their mean."""
    random = np.random.default_rng(seed)
    targets, primary, song = labels(random, songs, 0.1)
    return build(
        sigmoid(0.5 * targets + random.normal(-0.9, 0.5, targets.shape)), targets, primary, song, split
    )


def raised_floor(seed: int, songs: int = 250, split: str = "test") -> ClassPredictions:
    """A model trained by plain weighted cross-entropy: certain negatives of the rare classes settle at
    0.75."""
    random = np.random.default_rng(seed)
    targets, primary, song = labels(random, songs, 0.1)
    z = logits(random, targets > 0)
    z[:, 4:] = np.where(targets[:, 4:] > 0, 4.0, 1.1) + random.normal(0, 0.2, targets[:, 4:].shape)
    return build(sigmoid(z), targets, primary, song, split)
