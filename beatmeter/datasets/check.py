"""`beatmeter data check`: read every file of a dataset and account for every row of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beatmeter.audio.decode import measure
from beatmeter.audio.identity import track_key
from beatmeter.datasets import open_dataset
from beatmeter.datasets.dataset import Dataset, Exclusion
from beatmeter.datasets.leaks import without_leaks
from beatmeter.errors import AudioError, shown
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import SPLITS, Track
from beatmeter.settings import DataConfig

Outcome = tuple[str, float] | AudioError  # track key and seconds


@dataclass(frozen=True)
class Report:
    """A dataset after everything that must be left out of it is left out. `seconds` of audio, None when not
    decoded."""

    dataset: Dataset
    classes: tuple[str, ...]
    seconds: float | None

    @property
    def status(self) -> int:
        """0 nothing was left out, 1 something was, 2 nothing is left."""
        return 2 if not self.dataset.tracks else int(bool(self.dataset.excluded))

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were left out, by kind."""
        return Counter(e.kind for e in self.dataset.excluded)

    def counts(self) -> list[tuple[str, str, dict[str, int]]]:
        """(source, split, tracks by primary class) for every source and split that has tracks; '-' is no
        split."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for track in self.dataset.tracks:
            found.setdefault((track.source or "-", track.split or "-"), Counter())[track.primary or "-"] += 1
        order = {split: i for i, split in enumerate(SPLITS)}
        return [
            (source, split, dict(n))
            for (source, split), n in sorted(
                found.items(), key=lambda item: (item[0][0], order.get(item[0][1], 9))
            )
        ]

    def warnings(self) -> list[str]:
        """What is worth a second look although no row is at fault."""
        tracks, found = self.dataset.tracks, []
        splits = [s for s in SPLITS if any(t.split == s for t in tracks)]
        primary = {(t.split, t.primary) for t in tracks}
        for split in splits:
            absent = [
                c for c in self.classes if any(p == c for _, p in primary) and (split, c) not in primary
            ]
            if absent:
                found.append(f"{split} has no track of class {', '.join(absent)}")
        sources = {t.source for t in tracks if t.primary}
        for source in sorted(sources) if len(sources) > 1 else []:
            labels = Counter(t.primary for t in tracks if t.source == source and t.primary)
            label, n = labels.most_common(1)[0]
            if sum(labels.values()) >= 20 and n / sum(labels.values()) > 0.8:
                found.append(
                    f"source {source} is {n / sum(labels.values()):.0%} class {label}: a model may learn the "
                    "source instead of the meter"
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what `--json` prints."""
        return {
            "name": self.dataset.name,
            "kind": self.dataset.kind,
            "sha256": self.dataset.sha256,
            "classes": list(self.classes),
            "tracks": len(self.dataset.tracks),
            "groups": len({t.group for t in self.dataset.tracks}),
            "several_classes": sum(len(t.labels) > 1 for t in self.dataset.tracks),
            "seconds": self.seconds,
            "counts": [
                {"source": source, "split": split, "classes": n} for source, split, n in self.counts()
            ],
            "corrections": [dict(c) for c in self.dataset.corrections],
            "reasons": dict(self.reasons),
            "excluded": [asdict(e) for e in self.dataset.excluded],
            "warnings": self.warnings(),
            "status": self.status,
        }


def check(
    path: Path,
    config: DataConfig,
    classes: Sequence[str],
    decode: bool = True,
    jobs: int = 1,
    progress: Reporter = SILENT,
) -> Report:
    """Open a dataset, read every file (`decode`: all of its audio, else only its bytes), look for copies and
    leaks.

    `progress` hears of every file; `jobs` processes work at a time. Raises
    DataError when there is no dataset to check.
    """
    dataset = open_dataset(path, config, classes, labelled=False)
    if dataset.kind not in ("folder", "file") or any(t.labels for t in dataset.tracks):
        dataset = dataset.labelled()
    keys: dict[str, str] = {}
    broken: list[Exclusion] = []
    seconds = 0.0
    with progress.track("checking", len(dataset.tracks)) as tick:
        for track, outcome in _examine(dataset.tracks, decode, jobs):
            tick(1)
            if isinstance(outcome, AudioError):
                broken.append(Exclusion.of(track, outcome.kind, outcome.what))
            else:
                keys[track.id], length = outcome
                seconds += length
    return Report(without_leaks(dataset.without(broken), keys), tuple(classes), seconds if decode else None)


def _examine(tracks: Sequence[Track], decode: bool, jobs: int) -> Iterator[tuple[Track, Outcome]]:
    """Every track with what `_look` says of it, in order."""
    outcomes = ordered(partial(_look, decode), (track.path for track in tracks), min(jobs, len(tracks)))
    for track, outcome in zip(tracks, outcomes, strict=True):
        if isinstance(outcome, Crash):
            outcome = AudioError(
                f"{shown(track.path)} made the decoder crash",
                "Convert it with another program, or leave it out.",
            )
        yield track, outcome


def _look(decode: bool, path: Path) -> Outcome:
    """Track key and seconds of a file, or why it cannot be used."""
    try:
        seconds = measure(path) if decode else 0.0
        return track_key(path), seconds
    except AudioError as error:
        return error
