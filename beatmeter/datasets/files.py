"""Which audio files lie under a folder, and which of them a table means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from beatmeter.errors import DataError, shown
from beatmeter.runtime.paths import StrPath, as_path

_CODECS = (
    "wav rf64 w64 flac aif aiff aifc au snd caf wv ape mp3 mp2 mpga ogg oga opus m4a m4b mp4 aac ac3 wma "
    "mka webm"
)
SUFFIXES = frozenset(f".{name}" for name in _CODECS.split())
_SEGMENT = re.compile(r"(.+)_seg\d+", re.IGNORECASE)
P = TypeVar("P", bound=PurePath)


class MissingFileError(DataError):
    """A table names a file that is not there, or may not be used. `kind` is the kind of the exclusion."""

    def __init__(self, what: str, kind: str = "missing") -> None:
        super().__init__(what)
        self.kind = kind


def is_audio(name: str) -> bool:
    """Whether a file name is one of audio: by its suffix, hidden files and AppleDouble companions (`._x`)
    aside."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (a name, a million times)


def find_audio(folder: StrPath) -> list[Path]:
    """All audio files under `folder`, sorted. Links are followed, each folder is entered once (links may form
    loops); hidden folders and `__MACOSX` are left alone. Raises DataError when a folder cannot be listed."""
    top = as_path(folder)
    return [top / name for name in audio_names(top)]


def audio_names(folder: Path, skip: Callable[[OSError], object] | None = None) -> list[str]:
    """`find_audio` as POSIX paths relative to `folder`. `skip` is told of folders below it that cannot be
    listed, which then are left out (None: DataError, as for the folder itself)."""
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    top = os.fspath(folder)

    def refuse(error: OSError) -> None:
        if skip is None or error.filename == top:
            raise DataError(
                f"cannot list {shown(error.filename)}: {error.strerror}",
                "Check its permissions, and that nobody moves it.",
            ) from None
        skip(error)

    for here, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        try:
            status = os.stat(here)  # noqa: PTH116
        except OSError as error:  # it went away since it was listed
            refuse(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        relative = os.path.relpath(here, top)
        prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        found += [prefix + name for name in files if is_audio(name)]
    return sorted(found)


def name_of(folder: Path) -> str:
    """What a dataset in this folder is called."""
    return shown(folder.absolute().name) or "root"


def listing(folder: Path) -> list[Path]:
    """What lies directly in a folder, sorted. Raises DataError when it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {shown(folder)}: {error.strerror}", "Check its permissions.") from None


def clean(cell: str) -> PurePosixPath:
    """A table's file name as a relative path: leading slashes and `./` gone, backslashes turned, `..`
    resolved.

    Raises MissingFileError (kind outside) when it leaves the folder.
    """
    if "\0" in cell:
        raise MissingFileError("its file name holds a zero byte")
    parts: list[str] = []
    for part in cell.replace("\\", "/").split("/"):
        if part == "..":
            if not parts:
                raise MissingFileError(f"{shown(cell)} points outside the dataset's folder", "outside")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise MissingFileError(f"{shown(cell)!r} names no file")
    return PurePosixPath(*parts)


def stem(path: P) -> P:
    """The path without its suffix, when that is one of audio: stems may hold dots (`blues.00000`)."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def song(name: str) -> str | None:
    """`artist_title` of a segment `artist_title_seg07` of a song, or None when it is no segment."""
    match = _SEGMENT.fullmatch(name)
    return match[1] if match else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


class AudioFolder:
    """The audio files under a folder, found by the names that tables use.

    A name matches whatever its suffix (labels say .wav, archives hold .mp3), its case and its Unicode form.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _paths(self) -> list[PurePosixPath]:
        return [PurePosixPath(name) for name in audio_names(self.root)]

    @cached_property
    def _by_path(self) -> dict[str, list[PurePosixPath]]:
        """Files by their whole relative path, folded and without suffix."""
        index: dict[str, list[PurePosixPath]] = {}
        for path in self._paths:
            index.setdefault(_fold(str(stem(path))), []).append(path)
        return index

    @cached_property
    def _by_source(self) -> dict[tuple[str, str], list[PurePosixPath]]:
        """Files by (any folder above them, stem), folded; the root's own files have no folder."""
        index: dict[tuple[str, str], list[PurePosixPath]] = {}
        for path in self._paths:
            name = _fold(stem(path).name)
            for above in {_fold(part) for part in path.parts[:-1]} | {""}:
                index.setdefault((above, name), []).append(path)
        return index

    def find(self, cell: str, anywhere: bool = False) -> Path:
        """The file that a table names by `cell`, relative to the folder (a leading slash is the folder's).

        Looked for at that path; then, for `SRC/stem`, below any folder named SRC; with `anywhere` by its stem
        alone, for tables of a single source. Raises MissingFileError when it is not there, lies outside, or
        several files could be it.
        """
        if cell != cell.strip() and not self._candidates(clean(cell), anywhere):
            cell = cell.strip()
        absolute = Path(cell)
        if absolute.is_absolute() and absolute.is_relative_to(self.root.absolute()):
            cell = str(absolute.relative_to(self.root.absolute()))
        name = clean(cell)
        found = self._candidates(name, anywhere)
        if found:
            return self.root / self._choose(name, found)
        if absolute.is_absolute() and os.path.exists(cell):  # noqa: PTH110 (false, not an error, for impossible names)
            raise MissingFileError(f"{shown(cell)} lies outside the dataset's folder", "outside")
        raise MissingFileError(
            f"there is no audio file {shown(name)} (with any suffix) under {shown(self.root)}"
        )

    def _candidates(self, name: PurePosixPath, anywhere: bool) -> list[PurePosixPath]:
        """Files that `name` could mean: those of the most exact way to look that finds any."""
        whole, last = _fold(str(stem(name))), _fold(stem(name).name)
        return (
            self._by_path.get(whole, [])
            or (self._by_source.get((_fold(name.parts[0]), last), []) if len(name.parts) == 2 else [])
            or (self._by_source.get(("", last), []) if anywhere else [])
        )

    def _choose(self, name: PurePosixPath, found: list[PurePosixPath]) -> PurePosixPath:
        """The one with the exact name, the exact case, the table's suffix, in this order; else there must be
        only one clip."""
        tests: tuple[Callable[[PurePosixPath], bool], ...] = (
            lambda path: path == name,
            lambda path: stem(path) == stem(name) and path.suffix.lower() == name.suffix.lower(),
            lambda path: stem(path) == stem(name),
            lambda path: path.suffix.lower() == name.suffix.lower(),
        )
        for fits in tests:
            chosen = [path for path in found if fits(path)]
            if len(chosen) == 1:
                return chosen[0]
        if (
            len({stem(path) for path in found}) == 1
        ):  # one clip in several formats: the first suffix of the alphabet, always
            return found[0]
        raise MissingFileError(
            f"several files could be {shown(name)}: {', '.join(shown(path) for path in found[:4])}",
            "ambiguous",
        )
