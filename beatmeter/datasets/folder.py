"""A folder of audio files, or a single one. Sub-folders named by class (`3/`, `4/`, `3+4/`) are labels,
`train/`, `val/` and `test/` are splits; without them the tracks have neither, which is enough to extract and
to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beatmeter.datasets.dataset import Dataset
from beatmeter.datasets.files import find_audio, name_of, song, stem
from beatmeter.datasets.labels import Labels, to_class
from beatmeter.errors import DataError, shown
from beatmeter.schema import SPLITS, Track, sha256_json

__all__ = ["find_audio", "read"]


def read(path: Path, classes: Sequence[str]) -> Dataset:
    """The audio under a folder, or one audio file. A track's id is its path under the folder; segments
    `x_seg07` of one song are a group."""
    root, found = (path, find_audio(path)) if path.is_dir() else (path.parent, [path])
    if not found:
        raise DataError(f"no audio files under {shown(path)}", "Give a folder that holds some.")
    name = name_of(root)
    tracks = [_track(file, root, name, classes) for file in found]
    content = sha256_json([[t.id, sorted(t.labels), t.split] for t in tracks])
    return Dataset(tuple(tracks), (), name, "folder" if path.is_dir() else "file", content)


def _track(file: Path, root: Path, name: str, classes: Sequence[str]) -> Track:
    place = file.relative_to(root)
    labels, split = Labels({}, ""), None
    for part in place.parts[:-1]:
        if split is None and part.lower() in SPLITS:
            split = part.lower()
        elif not labels.weights:
            labels = _labels(part, classes)
    piece = song(stem(Path(place.name)).name)
    return Track(
        shown(place.as_posix()),
        file,
        labels.weights,
        labels.primary or None,
        f"song:{shown(piece)}" if piece else "",
        name,
        split,
    )


def _labels(folder: str, classes: Sequence[str]) -> Labels:
    """What a folder's name says: a class, or several joined by +; nothing when it says something else."""
    try:
        names = [to_class(part, classes) for part in folder.split("+")]
    except DataError:
        return Labels({}, "")
    return Labels(dict.fromkeys(names, 1.0), names[0])
