"""A data set of annotations of music that lies elsewhere: links to the audio, an annotation for each track, a
manifest.

OUT/manifest.csv              id, file, title, artist, source, annotation
OUT/audio/ID.mp3              links to the files where they lie
OUT/annotations/ID.json       what is known
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from beatmeter.datasets.annotations.records import Annotation
from beatmeter.datasets.annotations.registry import write_annotation
from beatmeter.errors import DataError, shown
from beatmeter.runtime import atomic

_COLUMNS = ("id", "file", "title", "artist", "source", "annotation")


def claim(out: Path, source: str) -> None:
    """Raise DataError where `out` holds anything but such a data set, or one of another source."""
    hint = "Name a new folder, or one that this command made."
    if not out.exists():
        return
    mine = ("manifest.csv", "audio", "annotations")
    audio = out / "audio"
    if (
        not out.is_dir()
        or any(p.name not in mine for p in out.iterdir())
        or (audio.is_dir() and not all(p.is_symlink() for p in audio.iterdir()))
    ):
        raise DataError(f"{shown(out)} holds other files", hint)
    manifest = out / "manifest.csv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            others = {row.get("source") or "unknown" for row in csv.DictReader(file)} - {source}
        if others:
            raise DataError(f"{shown(out)} is a data set of {', '.join(sorted(others))}", hint)


def write_linked(
    out: Path, source: str, annotations: Mapping[str, Annotation], paths: Mapping[str, Path]
) -> None:
    """Write the annotations and link the audio of each, by id. `source` is a column of the manifest."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(_COLUMNS)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    for id in sorted(annotations):
        link = out / "audio" / f"{id}{paths[id].suffix}"
        if link.is_symlink():
            link.unlink()
        link.symlink_to(paths[id].absolute())
        write_annotation(out / "annotations" / f"{id}.json", annotations[id])
        meta = annotations[id].meta
        writer.writerow(
            [
                id,
                f"audio/{link.name}",
                meta.get("title", ""),
                meta.get("artist", ""),
                source,
                f"annotations/{id}.json",
            ]
        )
    atomic.write_text(out / "manifest.csv", rows.getvalue())
