"""Datasets: `open_dataset` finds out what lies in a place and gives its tracks, with every row that was left
out.

Reading tables and finding files only; audio is opened by `beatmeter.datasets.check` and by extraction. Tracks
without a split get one from `beatmeter.datasets.splits`, which also keeps leaks out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beatmeter.datasets import files, folder, manifest, meter2800
from beatmeter.datasets.corrections import LabelFile, apply_corrections
from beatmeter.datasets.dataset import JOINED, Dataset, Exclusion
from beatmeter.datasets.decisions import DecisionTable
from beatmeter.datasets.tables import SUFFIXES, read_columns
from beatmeter.errors import DataError, shown
from beatmeter.runtime.paths import StrPath, as_path, as_paths
from beatmeter.schema import Track
from beatmeter.settings import DataConfig

__all__ = ["Dataset", "Exclusion", "open_dataset"]

_KINDS = (
    "Give a folder with METER2800 tables (data_train_4_classes.tab), with a manifest.csv (columns file and "
    "class), "
    "or with audio files (in folders named by class: 3/, 4/), or one such table or audio file."
)


def open_dataset(path: StrPath, config: DataConfig, classes: Sequence[str], labelled: bool = True) -> Dataset:
    """The dataset at `path`: a folder, a table, or an audio file; its kind is found out.

    `classes` are the labels that count. With `labelled`, tracks without one of them are excluded, else they
    stay as unlabelled tracks. The datasets in `config.extra` join with split train; then labels and beats are
    corrected by `config.corrections`. Raises DataError when nothing fits.
    """
    dataset = _open(as_path(path), config, classes)
    for extra in as_paths(config.extra):
        dataset = _join(dataset, _open(extra, DataConfig(), classes))
    for file in as_paths(config.corrections):
        dataset = _corrected(dataset, file, classes)
    return dataset.labelled() if labelled else dataset


def _corrected(dataset: Dataset, file: Path, classes: Sequence[str]) -> Dataset:
    """The dataset after a review of labels or of beats."""
    table = DecisionTable.read(file)
    if not table.of_beats:
        return apply_corrections(dataset, LabelFile.of(table), classes)
    # whoever reads no annotations, `predict` for one, does without the packages that these need
    from beatmeter.datasets.beat_corrections import BeatFile, correct_beats

    return correct_beats(dataset, BeatFile.of(table))


def _open(path: Path, config: DataConfig, classes: Sequence[str]) -> Dataset:
    if not path.exists():
        raise DataError(f"there is no dataset {shown(path)}", _KINDS)
    if path.is_dir():
        return _open_folder(path, config, classes)
    if path.suffix.lower() in SUFFIXES:
        return _open_table(path, classes)
    if files.is_audio(path.name):
        return folder.read(path, classes)
    raise DataError(f"{shown(path)} is no dataset", _KINDS)


def _open_folder(path: Path, config: DataConfig, classes: Sequence[str]) -> Dataset:
    official = meter2800.official_tables(path, config.classes)
    if official:
        return meter2800.read(path, official, classes)
    tables = [
        p
        for p in files.listing(path)
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]
    named = [p for p in tables if p.stem.lower() == "manifest"] or [
        p for p in tables if manifest.fits(read_columns(p))
    ]
    if len(named) == 1:
        return _open_table(named[0], classes)
    if named:
        splits = [meter2800.split_of(p) for p in named]
        if None not in splits and len(set(splits)) == len(splits) and all(_is_label_table(p) for p in named):
            return meter2800.read(path, named, classes)
        raise DataError(
            f"{shown(path)} holds several tables: {', '.join(shown(p.name) for p in named)}",
            "Name the one to read.",
        )
    if not files.find_audio(path):
        raise DataError(f"{shown(path)} holds neither audio files nor a table that names some", _KINDS)
    return folder.read(path, classes)


def _open_table(path: Path, classes: Sequence[str]) -> Dataset:
    return (
        meter2800.read(path.parent, [path], classes)
        if _is_label_table(path)
        else manifest.read(path, classes)
    )


def _is_label_table(path: Path) -> bool:
    columns = read_columns(path)
    return all(name in columns for name in meter2800.COLUMNS)


def _join(dataset: Dataset, extra: Dataset) -> Dataset:
    """The dataset with the tracks of another that may train only. What is val or test over there stays out,
    so that the other dataset can still be tested on; what has an id of this dataset stays out, so that ids
    stay distinct."""
    taken = {t.id for t in dataset.tracks} | {e.id for e in dataset.excluded}
    tracks: list[Track] = []
    excluded = [replace(e, source=e.source or extra.name) for e in extra.excluded]
    for track in extra.tracks:
        joined = replace(
            track, split="train", source=track.source or extra.name, extra={**track.extra, JOINED: extra.name}
        )
        if track.split in ("val", "test"):
            excluded.append(
                Exclusion.of(
                    track,
                    "leak",
                    f"extra data train only, and this row is in the {track.split} split of {extra.name}",
                )
            )
        elif track.id in taken:
            excluded.append(Exclusion.of(joined, "duplicate", f"{dataset.name} has a row of the same id"))
        else:
            taken.add(track.id)
            tracks.append(joined)
    content = hashlib.sha256(f"{dataset.sha256}{extra.sha256}".encode()).hexdigest()
    return replace(
        dataset, tracks=(*dataset.tracks, *tracks), excluded=(*dataset.excluded, *excluded), sha256=content
    )
