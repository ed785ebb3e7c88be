"""Splits by group: made deterministically, balanced over the classes as far as groups allow, stored as a
file.

A group (song, tune, artist) lies in one split as a whole. Tracks that bring a split keep it; a split file
names every track and goes before both.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from beatmeter.audio.identity import track_keys
from beatmeter.datasets.columns import grouped_by
from beatmeter.datasets.dataset import JOINED, Dataset, Exclusion
from beatmeter.datasets.leaks import without_leaks
from beatmeter.datasets.tables import read_table
from beatmeter.errors import AudioError, DataError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.display import count
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import SPLITS, Track
from beatmeter.settings import SplitConfig

COLUMNS = ("id", "group", "split")


def split_dataset(
    dataset: Dataset,
    config: SplitConfig,
    cache: Path | None = None,
    jobs: int = 1,
    tick: Tick = untold,
) -> Dataset:
    """The dataset with a split for every track, and without anything that would leak from one into another.

    Audio is compared by the hash of its bytes; `cache` is the folder that remembers the hashes, `jobs` and
    `tick` are those of `track_keys`. What goes is in `excluded`, with the track that it would leak into.
    """
    if config.groups:
        dataset = replace(dataset, tracks=tuple(grouped_by(dataset.tracks, config.groups)))
    keys, unreadable = audio_keys(dataset.tracks, cache, jobs, tick)
    dataset = dataset.without(unreadable)
    if config.file:
        dataset = replace(dataset, tracks=tuple(_by_file(dataset.tracks, config.file)))
        strangers = [t for t in dataset.tracks if t.split is None]
        dataset = dataset.without(
            [
                Exclusion.of(t, "split", f"the split file {shown(config.file)} does not name it")
                for t in strangers
            ]
        )
    dataset = without_leaks(dataset, keys)
    return without_leaks(replace(dataset, tracks=tuple(assign_splits(dataset.tracks, config))), keys)


def audio_keys(
    tracks: Sequence[Track], cache: Path | None = None, jobs: int = 1, tick: Tick = untold
) -> tuple[dict[str, str], list[Exclusion]]:
    """Track key of every track by id, and the exclusions of those whose file cannot be read."""
    keys: dict[str, str] = {}
    unreadable: list[Exclusion] = []
    for track, key in zip(tracks, track_keys([t.path for t in tracks], cache, jobs, tick), strict=True):
        if isinstance(key, AudioError):
            unreadable.append(Exclusion.of(track, key.kind, key.what))
        else:
            keys[track.id] = key
    return keys, unreadable


def _by_file(tracks: Sequence[Track], file: str) -> list[Track]:
    """The tracks with the splits that a split file gives them; extra data stay in train."""
    given = read_split(Path(file))
    if tracks and not any(t.id in given for t in tracks):
        raise DataError(
            f"{shown(file)} names none of these {count(len(tracks), 'track')}, for instance not "
            f"{tracks[0].id!r}",
            "Is it the split of another dataset?",
        )
    return [t if JOINED in t.extra else replace(t, split=given.get(t.id, t.split)) for t in tracks]


def assign_splits(tracks: Sequence[Track], config: SplitConfig) -> list[Track]:
    """The tracks with a split each. Those that have one keep it; a track without one takes that of its group,
    else one that `config` and the classes of all such groups decide."""
    settled = {t.group: t.split for t in tracks if t.split is not None and JOINED not in t.extra}
    free: dict[str, list[Track]] = {}
    for track in tracks:
        if track.split is None and track.group not in settled:
            free.setdefault(track.group, []).append(track)
    chosen = {**settled, **_choose(free, config)}
    return [t if t.split is not None else replace(t, split=chosen[t.group]) for t in tracks]


def _choose(groups: Mapping[str, Sequence[Track]], config: SplitConfig) -> dict[str, str]:
    """Largest groups first, equal ones in an order that the seed decides: each goes where the counts per
    class, as a share of what that split should have, come out most even."""
    shares = {"train": 1 - config.val - config.test, "val": config.val, "test": config.test}
    shares = {name: share for name, share in shares.items() if share > 0}
    totals = Counter(t.primary for tracks in groups.values() for t in tracks)
    counts: dict[str, Counter[str | None]] = {name: Counter() for name in shares}

    def cost(split: str, here: Counter[str | None]) -> float:
        """Growth of the sum over classes of (count - wanted)^2 / wanted when the group joins this split."""
        total = 0.0
        for label, n in here.items():
            wanted = shares[split] * totals[label]
            over = counts[split][label] - wanted
            total += ((over + n) ** 2 - over**2) / wanted
        return total

    def order(group: str) -> tuple[int, str]:
        return -len(groups[group]), hashlib.sha256(
            f"{config.seed}:{group}".encode("utf-8", "surrogateescape")
        ).hexdigest()

    chosen: dict[str, str] = {}
    for group in sorted(groups, key=order):
        here = Counter(t.primary for t in groups[group])
        chosen[group] = min(shares, key=lambda split: cost(split, here))
        counts[chosen[group]].update(here)
    return chosen


def write_split(path: StrPath, tracks: Iterable[Track]) -> str:
    """Write (id, group, split) of every track as CSV; the hex sha256 of the file's bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted((t.id, t.group, t.split or "") for t in tracks))
    data = text.getvalue().encode("utf-8")
    atomic.write_bytes(as_path(path), data)
    return hashlib.sha256(data).hexdigest()


def read_split(path: StrPath) -> dict[str, str]:
    """Split by track id, from a file of `write_split`. Raises DataError (file:line) for what it does not
    understand."""
    path = as_path(path)
    table = read_table(path)
    if not {"id", "split"} <= set(table.columns):
        raise DataError(
            f"{shown(path)} is no split file",
            f"It needs the columns id and split; it has: {', '.join(table.columns)}.",
        )
    result: dict[str, str] = {}
    for row in table.rows:
        if row.problem or not row.cells["id"] or row.cells["split"] not in SPLITS:
            raise DataError(
                f"{row.where}: {row.problem or 'every row needs an id and one of train, val, test'}",
                "Write it again with `beatmeter data split`.",
            )
        if result.setdefault(row.cells["id"], row.cells["split"]) != row.cells["split"]:
            raise DataError(f"{row.where}: {row.cells['id']!r} is in two splits", "Keep one of the rows.")
    return result
