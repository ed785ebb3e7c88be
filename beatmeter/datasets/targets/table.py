"""The table of proxy targets: measured file by file, resumable, with a description beside it.

t.csv          a row per track: `id`, a column per target, columns of the dataset; empty where not known
t.meta.json    units, definitions, versions; what was refused, what is not defined and why, which files failed
t.mel.npz      `ids` and `vectors`, the mel statistics of the same files: the control of every probe
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter import __version__
from beatmeter.audio.decode import load
from beatmeter.datasets.columns import require_columns, text_of
from beatmeter.datasets.dataset import Dataset
from beatmeter.datasets.targets.measures import DROPPED, HOP, RATE, TARGETS, VERSION, measure
from beatmeter.errors import AudioError, DataError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_json_lines, write_json
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Track


@dataclass(frozen=True)
class Measured:
    """What was written: rows, columns, files that `failed` with their reasons, columns that were
    `refused`."""

    rows: int
    columns: tuple[str, ...]
    failed: Mapping[str, str]
    refused: Mapping[str, str]


def measure_targets(
    dataset: Dataset, out: Path, columns: Sequence[str] = (), jobs: int = 1, progress: Reporter = SILENT
) -> Measured:
    """Measure every track into the table `out` (CSV), with `columns` of the dataset beside the targets.

    What was measured is kept line by line in `<out>.lines` until the table is complete, so that the same
    command goes on where it was stopped. A file that cannot be used is named and does not stop the rest.
    Raises DataError for an unknown column, and when nothing could be measured."""
    if out.suffix.lower() != ".csv":
        raise DataError(f"{shown(out)} is no name for the table", "Name a file that ends with .csv.")
    columns = [name.strip().lower() for name in columns]
    require_columns(dataset.tracks, columns, "--columns")
    twice = sorted({t.name for t in TARGETS} & set(columns))
    if twice:
        raise DataError(
            f"the column {twice[0]!r} of the dataset has the name of a target", "Rename it in the manifest."
        )
    atomic.require_writable(out)
    lines = out.with_suffix(".lines")
    done = _kept(lines, dataset.tracks)
    todo = [t for t in dataset.tracks if t.id not in done]
    with lines.open("a", encoding="utf-8") as file, progress.track("measuring", len(todo)) as tick:
        for track, line in zip(todo, ordered(_measured, todo, jobs), strict=True):
            if isinstance(line, Crash):
                line = {"id": track.id, "stamp": _stamp(track.path), "failed": "the decoder crashed"}
            done[track.id] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            tick(1)
    failed = {name: line["failed"] for name, line in done.items() if "failed" in line}
    good = [t for t in dataset.tracks if t.id not in failed]
    if not good:
        name, reason = next(iter(failed.items()), ("", "it has no tracks"))
        raise DataError(
            f"nothing of {dataset.name} can be measured: {name}: {reason}", "See `beatmeter data check`."
        )
    refused = dict(DROPPED) | _refused([done[t.id]["values"] for t in good])
    names = [t.name for t in TARGETS if t.name not in refused]
    atomic.write_text(out, _csv(good, done, names, columns))
    mel = io.BytesIO()
    np.savez(
        mel,
        ids=np.array([t.id for t in good]),
        vectors=np.array([done[t.id]["mel"] for t in good], np.float32),
    )
    atomic.write_bytes(out.with_suffix(".mel.npz"), mel.getvalue())
    write_json(out.with_suffix(".meta.json"), _about(dataset, good, done, names, columns, refused, failed))
    lines.unlink()
    return Measured(len(good), (*names, *columns), failed, refused)


def _kept(lines: Path, tracks: Sequence[Track]) -> dict[str, dict[str, Any]]:
    """What an earlier run measured of these files, as they still are."""
    if not lines.exists():
        return {}
    stamps = {t.id: _stamp(t.path) for t in tracks}
    found = {}
    for line in read_json_lines(lines, DataError, "Delete it to measure anew.").values:
        if line.get("stamp") == stamps.get(line.get("id", ""), ()) and ("failed" in line or "values" in line):
            found[line["id"]] = line
    return found


def _stamp(path: Path) -> list[int]:
    """What changes with the file, or with the definitions."""
    try:
        status = path.stat()
    except OSError:
        return [VERSION]
    return [VERSION, status.st_size, status.st_mtime_ns]


def _measured(track: Track) -> dict[str, Any]:
    line: dict[str, Any] = {"id": track.id, "stamp": _stamp(track.path)}
    try:
        values, why, mel = measure(load(track.path, RATE), track.id)
    except AudioError as error:
        return {**line, "failed": error.what}
    return {**line, "values": values, "why": why, "mel": [round(float(x), 4) for x in mel]}


def _refused(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The targets of which there is nothing to learn, with the reason."""
    found = {}
    for target in TARGETS:
        values = [row[target.name] for row in rows if target.name in row]
        if not values:
            found[target.name] = "it is not defined for any track"
        elif max(values) == min(values) and len(values) > 1:
            found[target.name] = f"it is {values[0]:g} for all {len(values)} tracks: a constant"
    return found


def _csv(good: Sequence[Track], done: Mapping[str, Any], names: Sequence[str], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *names, *columns])
    for track in good:
        values = done[track.id]["values"]
        cells = [repr(values[name]) if name in values else "" for name in names]
        writer.writerow([track.id, *cells, *(text_of(track, column) for column in columns)])
    return text.getvalue()


def _about(
    dataset: Dataset,
    good: Sequence[Track],
    done: Mapping[str, Any],
    names: Sequence[str],
    columns: Sequence[str],
    refused: Mapping[str, str],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    from importlib.metadata import version

    undefined: dict[str, Counter[str]] = {}
    for track in good:
        for name, reason in done[track.id]["why"].items():
            undefined.setdefault(name, Counter())[reason] += 1
    return {
        "targets": VERSION,
        "versions": {"beatmeter": __version__, "librosa": version("librosa"), "numpy": np.__version__},
        "dataset": {"name": dataset.name, "sha256": dataset.sha256, "tracks": len(good)},
        "audio": {"rate": RATE, "hop": HOP},
        "columns": {t.name: {"unit": t.unit, "about": t.about} for t in TARGETS if t.name in names},
        "metadata": list(columns),
        "refused": dict(refused),
        "not defined": {name: dict(counts) for name, counts in undefined.items() if name in names},
        "failed": dict(failed),
    }
