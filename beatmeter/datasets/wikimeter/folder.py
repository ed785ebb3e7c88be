"""The folder of a WIKIMETER set: one record per work is the truth, the tables are written anew from the
records.

    OUT/wikimeter.tab            the labels, in the columns of METER2800, and the group of every segment
    OUT/WIKI/{song}_seg00.flac   the segments
    OUT/licences.csv             per segment: licence and uploader by its source, and where it came from
    OUT/rejected.csv             every candidate that was turned down, with its reason
    OUT/works/{song}.json        the records
    OUT/tmp/                     downloads in flight

A work counts when its record is written, which comes last: killed at any moment, the folder holds whole works
only.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from beatmeter.datasets.files import song
from beatmeter.datasets.labels import format_labels
from beatmeter.datasets.wikimeter.catalogue import Work, groups
from beatmeter.errors import DataError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_json, write_json

SOURCE = "WIKI"
_WORDS = {"3": "three", "4": "four", "5": "five", "7": "seven", "9": "nine", "11": "eleven"}
_ALTERNATIVE = {"3": "6", "4": "2", "5": "10", "7": "14"}  # as METER2800 pairs them
_LABELS = ("filename", "label", "meter", "alt_meter", "group", "verified")
_LICENCES = (
    "file",
    "artist",
    "title",
    "licence",
    "uploader",
    "url",
    "title_at_source",
    "start",
    "end",
    "fetched",
)
_REJECTED = ("artist", "title", "url", "candidate", "reason", "time", "tried_again")


@dataclass(frozen=True)
class Refusal:
    """A candidate that was turned down. `again`: it is tried again by the next run, because the reason may
    pass."""

    url: str
    candidate: str
    reason: str
    time: str
    again: bool


@dataclass(frozen=True)
class Segment:
    """One segment: its file under the folder, where it lies in the song (seconds), its size in bytes."""

    file: str
    start: float
    end: float
    bytes: int


@dataclass(frozen=True)
class Source:
    """The download that the segments come from, and what its source says of it."""

    url: str
    title: str
    uploader: str
    licence: str
    seconds: float
    sha256: str
    fetched: str


@dataclass(frozen=True)
class Record:
    """All that is known of one work: done when it has a `source`."""

    work: Work
    source: Source | None = None
    segments: tuple[Segment, ...] = ()
    refusals: tuple[Refusal, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        work = Work(**{**value["work"], "people": tuple(value["work"]["people"])})
        source = None if value["source"] is None else Source(**value["source"])
        return cls(
            work,
            source,
            tuple(Segment(**s) for s in value["segments"]),
            tuple(Refusal(**r) for r in value["refusals"]),
        )


class WikiFolder:
    """A folder as above; made when it is not there. One process builds at a time (`locked`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels, self.licences, self.rejected = (
            path / "wikimeter.tab",
            path / "licences.csv",
            path / "rejected.csv",
        )
        self._works, self._tmp = path / "works", path / "tmp"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; what earlier runs left in flight is thrown away. Raises DataError when another
        process holds it."""
        if self.path.exists() and (
            not self.path.is_dir() or (any(self.path.iterdir()) and not self._works.is_dir())
        ):
            raise DataError(
                f"{shown(self.path)} is not a folder that this command made", "Name a new folder."
            )
        try:
            self._works.mkdir(parents=True, exist_ok=True)
            with (self.path / ".lock").open("a") as file:
                if not _lock(file.fileno()):
                    raise DataError(
                        f"another process is building {shown(self.path)}",
                        "Wait for it, or name another folder.",
                    )
                shutil.rmtree(self._tmp, ignore_errors=True)
                try:
                    yield
                finally:
                    shutil.rmtree(self._tmp, ignore_errors=True)
        except OSError as error:
            raise DataError(
                f"cannot write {shown(error.filename or self.path)}: {error.strerror or error}",
                "Is the disk full? Run again.",
            ) from None

    def staging(self) -> Path:
        """A new empty folder on the same disk."""
        path = self._tmp / f"{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir(parents=True)
        return path

    def records(self) -> dict[str, Record]:
        """All records by song. Raises DataError for one that cannot be read."""
        found: dict[str, Record] = {}
        for path in sorted(self._works.glob("*.json")):
            try:
                record = Record.from_json(read_json(path, DataError))
            except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{shown(path)} is no record of a work: {error}", "Delete it, and its work is done again."
                ) from None
            found[record.work.song] = record
        return found

    def whole(self, record: Record) -> bool:
        """Whether a record is done and all of its segments are there as they were written."""
        return record.source is not None and all(
            _size(self.path / s.file) == s.bytes for s in record.segments
        )

    def commit(self, record: Record, staged: Sequence[Path] = ()) -> None:
        """Move staged segments to their place, then write the record."""
        (self.path / SOURCE).mkdir(exist_ok=True)
        for file in staged:
            with file.open("rb") as data:
                os.fsync(data.fileno())
            file.replace(self.path / SOURCE / file.name)
        write_json(self._works / f"{record.work.song}.json", record.to_json(), ensure_ascii=False)

    def write_tables(self, records: Iterable[Record]) -> None:
        """Labels, licences and rejections of all records. Segments of their songs that they do not name are
        deleted first."""
        every = sorted(records, key=lambda r: r.work.song)
        named, songs = {s.file for r in every for s in r.segments}, {r.work.song for r in every}
        for path in (self.path / SOURCE).glob("*_seg*.flac"):
            if f"{SOURCE}/{path.name}" not in named and song(path.stem) in songs:
                path.unlink()
        done = [r for r in every if r.source is not None]
        group = groups(r.work for r in done)
        labels = [_label(r, s, group[r.work.song]) for r in done for s in r.segments]
        atomic.write_text(self.labels, _table(_LABELS, labels, "\t", csv.QUOTE_ALL))
        licences = [_licence(r, s) for r in done for s in r.segments]
        atomic.write_text(self.licences, _table(_LICENCES, licences))
        rejected = [
            (r.work.artist, r.work.title, x.url, x.candidate, x.reason, x.time, "yes" if x.again else "no")
            for r in every
            for x in r.refusals
        ]
        atomic.write_text(self.rejected, _table(_REJECTED, rejected))


def _label(record: Record, segment: Segment, group: str) -> tuple[str, ...]:
    work = record.work
    primary = work.primary
    alternative = _ALTERNATIVE.get(primary, "") if len(work.meters) == 1 else ""
    return (
        f"/{segment.file}",
        _WORDS.get(primary, primary),
        format_labels(work.meters, primary),
        alternative,
        group,
        "yes" if work.verified else "no",
    )


def _licence(record: Record, segment: Segment) -> tuple[str, ...]:
    source = record.source
    assert source is not None
    told = (source.licence or "not stated", source.uploader or "not stated", source.url, source.title)
    return (
        segment.file,
        record.work.artist,
        record.work.title,
        *told,
        f"{segment.start:g}",
        f"{segment.end:g}",
        source.fetched,
    )


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    delimiter: str = ",",
    quoting: Any = csv.QUOTE_MINIMAL,
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file; it goes with the process, however that ends. Without locks here, take it
    as taken."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
