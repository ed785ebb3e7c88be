"""One audit, top to bottom: features, clips that sound alike, suspicious labels, the review list, files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter import __version__
from beatmeter.datasets import Dataset, Exclusion
from beatmeter.datasets.corrections import written
from beatmeter.datasets.dataset import precedence
from beatmeter.errors import DataError, shown
from beatmeter.evaluation.predictions import write_predictions
from beatmeter.experiments.audit.copies import Pair, crosses, find_copies
from beatmeter.experiments.audit.kernels import kernel_of, rows_of, usable
from beatmeter.experiments.audit.review import Guess, Item, Review
from beatmeter.experiments.audit.suspects import Suspects, find_suspects, fits
from beatmeter.features.poolings import pooling_class
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions, Track
from beatmeter.store import Snapshot

SPLIT = "out-of-fold"  # what the split of the head's predictions is called


@dataclass(frozen=True)
class Audit:
    """What was found: `pairs` are positions in `dataset.tracks`; `suspects` are of the labelled tracks, in
    their order."""

    dataset: Dataset
    classes: tuple[str, ...]
    snapshot: str
    fingerprint: str
    suspects: Suspects
    pairs: tuple[Pair, ...]
    limits: Mapping[str, float]
    seed: int

    @property
    def labelled(self) -> list[Track]:
        """The tracks whose labels were judged."""
        return [t for t in self.dataset.tracks if t.labels]

    @property
    def weak(self) -> bool:
        """Whether the head is not surely better than naming the most frequent class: then its doubts mean
        little."""
        return self.suspects.accuracy.low <= self.suspects.majority

    def review(self, top: int = 100, controls: int = 0, show_guess: bool = False) -> Review:
        """The list for a reviewer: the `top` most suspicious labels and every clip that sounds like another.

        With `controls`, as many labels that nothing is said against stand among them, at random places.
        """
        tracks, s = self.labelled, self.suspects
        at = s.ranked[:top].tolist()
        rng = np.random.default_rng(self.seed)
        others = np.flatnonzero(~s.flagged)
        for i in rng.choice(others, min(controls, len(others)), replace=False).tolist():
            at.insert(int(rng.integers(0, len(at) + 1)), i)
        copies = self._copies()
        labels = []
        for i in at:
            item = copies.pop(tracks[i].id, Item(tracks[i]))
            labels.append(replace(item, guess=self._guess(i)) if show_guess else item)
        return Review(f"Review of {self.dataset.name}", self.classes, labels, list(copies.values()))

    def _guess(self, i: int) -> Guess:
        p = self.suspects.predictions
        return Guess(
            p.classes[int(p.scores[i].argmax())],
            dict(zip(p.classes, p.scores[i].tolist(), strict=True)),
            float(self.suspects.quality[i]),
        )

    def _copies(self) -> dict[str, Item]:
        """By id: the track of every pair that would give way to the other, and what it sounds like."""
        found: dict[str, Item] = {}
        for pair in self.pairs:
            a, b = self.dataset.tracks[pair.first], self.dataset.tracks[pair.second]
            twin, track = (a, b) if precedence(a) <= precedence(b) else (b, a)
            where = ", ".join(
                part
                for part in (twin.split or "", f"labelled {written(twin)}" if twin.labels else "not labelled")
                if part
            )
            reason = f"sounds like {twin.id} ({where}; cosine {pair.cosine:.4f})"
            found.setdefault(track.id, Item(track, None, twin, reason))
        return found

    def summary(self) -> dict[str, Any]:
        """Everything about the audit as plain JSON, and nothing of what the head guessed of a clip."""
        s = self.suspects
        return {
            "beatmeter": __version__,
            "dataset": {
                "name": self.dataset.name,
                "sha256": self.dataset.sha256,
                "corrections": list(self.dataset.corrections),
            },
            "classes": list(self.classes),
            "features": {"fingerprint": self.fingerprint, "snapshot": self.snapshot},
            "tracks": len(self.dataset.tracks),
            "labelled": len(s.predictions),
            "left out": len(self.dataset.excluded),
            "head": {
                "view": s.view,
                "strength": s.strength,
                "accuracy": asdict(s.accuracy),
                "majority": s.majority,
                "not learned": list(s.unlearned),
            },
            "flagged": int(s.flagged.sum()),
            "copies": {
                "pairs": len(self.pairs),
                "across splits": sum(
                    crosses(self.dataset.tracks[p.first], self.dataset.tracks[p.second]) for p in self.pairs
                ),
                "thresholds": dict(self.limits),
            },
            "seed": self.seed,
        }


def audit(
    dataset: Dataset,
    classes: Sequence[str],
    snapshot: Snapshot,
    keys: Mapping[str, str],
    seed: int = 0,
    progress: Reporter = SILENT,
) -> Audit:
    """Audit a dataset over stored features. `keys` are the track keys by id; tracks that have none, or no
    features, are left out. `progress` hears of every step.

    Raises DataError when too few tracks have features or labels.
    """
    lacking = [
        Exclusion.of(t, "no features", "its features are not in the store")
        for t in dataset.tracks
        if keys.get(t.id) not in snapshot.keys
    ]
    dataset = dataset.without(lacking)
    tracks = dataset.tracks
    if not tracks:
        raise DataError(
            f"none of the {len(lacking)} tracks of {dataset.name} has features in this store",
            "Extract them first: `beatmeter extract DATASET`.",
        )
    poolings = usable(snapshot.spec)
    tempo = {p.name for p in poolings if pooling_class(p).tempo_axis}
    views = len(poolings) - len(tempo) + bool(tempo)
    steps = sum(len(p.layers) for p in poolings) + fits(views)
    with progress.track("auditing", steps, "steps") as tick:
        with rows_of(snapshot, [keys[t.id] for t in tracks], tick) as rows:
            pairs, limits = find_copies({p.name: rows[p.name] for p in poolings}, tracks)
            at = np.array([i for i, t in enumerate(tracks) if t.labels], dtype=int)
            heard = {name: kernel_of(view[at]) for name, view in rows.items() if name not in tempo}
        items = _items([tracks[i] for i in at], classes, _joined_groups(tracks, pairs)[at])
        suspects = find_suspects(items, heard, seed, tick)
    return Audit(
        dataset, tuple(classes), snapshot.id, snapshot.spec.fingerprint, suspects, tuple(pairs), limits, seed
    )


def _joined_groups(tracks: Sequence[Track], pairs: Sequence[Pair]) -> np.ndarray:
    """The group of every track, those of clips that sound alike joined: a copy must not vouch for a label."""
    name = {t.group: t.group for t in tracks}

    def root(group: str) -> str:
        while name[group] != group:
            group = name[group]
        return group

    for pair in pairs:
        name[root(tracks[pair.first].group)] = root(tracks[pair.second].group)
    return np.array([root(t.group) for t in tracks], dtype=object)


def _items(tracks: Sequence[Track], classes: Sequence[str], groups: np.ndarray) -> ClassPredictions:
    """The labelled tracks as predictions without scores yet."""
    return ClassPredictions.of_tracks(
        tracks, classes, np.zeros((len(tracks), len(classes))), SPLIT, groups.tolist()
    )


def write_audit(found: Audit, review: Review, out: Path) -> None:
    """Write `review.html`, `review.csv`, `copies.csv` and `audit.json` to the folder `out`, and what the head
    guessed to `out/guesses/`, where a reviewer does not see it.

    Raises DataError when `out` holds a review already: somebody's work may be in it.
    """
    if (out / "review.csv").exists():
        raise DataError(
            f"{shown(out)} holds a review already", "Name another folder with --out, or move it away."
        )
    try:
        write_predictions(out / "guesses" / "predictions.csv", found.suspects.predictions)
        atomic.write_text(out / "guesses" / "labels.csv", _labels_csv(found, review))
        atomic.write_text(out / "copies.csv", _copies_csv(found))
        write_json(out / "audit.json", found.summary(), ensure_ascii=False)
        atomic.write_text(out / "review.html", review.to_html(out))
        atomic.write_text(out / "review.csv", review.to_csv())
    except OSError as error:
        raise DataError(
            f"cannot write to {shown(out)}: {error.strerror or error}", "Check the disk and the permissions."
        ) from None


def _labels_csv(found: Audit, review: Review) -> str:
    """Every judged label with the guess, worst first, and in which role it stands in the review."""
    s, listed = found.suspects, {item.track.id for item in review.labels}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "label", "guess", "quality", "flagged", "listed"])
    tracks = found.labelled
    for i in np.argsort(s.quality, kind="stable").tolist():
        guess, listing = (
            found._guess(i),
            "" if tracks[i].id not in listed else "suspect" if s.flagged[i] else "control",
        )
        writer.writerow(
            [
                tracks[i].id,
                written(tracks[i]),
                guess.answer,
                f"{guess.quality:.6f}",
                "yes" if s.flagged[i] else "no",
                listing,
            ]
        )
    return text.getvalue()


def _copies_csv(found: Audit) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "split", "label", "twin", "twin split", "twin label", "cosine", "pooling", "across splits"]
    )
    for p in found.pairs:
        a, b = found.dataset.tracks[p.first], found.dataset.tracks[p.second]
        sides = [part for t in (a, b) for part in (t.id, t.split or "", written(t))]
        writer.writerow([*sides, f"{p.cosine:.6f}", p.pooling, "yes" if crosses(a, b) else "no"])
    return text.getvalue()
