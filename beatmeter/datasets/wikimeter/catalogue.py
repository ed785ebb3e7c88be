"""A catalogue: works of music with the meter that they are known for, to be found, downloaded and cut into
segments.

    artist,title,meters,seconds,tune,people,source,verified,note
    Dave Brubeck Quartet,Take Five,5,324,,Paul Desmond,,no,

`meters` is written as everywhere (`7`, `3,4`, `3:0.7,4:1`), `seconds` is the expected length. The rest may be
absent: `tune` names the piece where the title does not, `people` further names that belong to it (by `;`),
`source` is a URL to take it from instead of a search, `verified` says whether somebody has listened for the
meter.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beatmeter.datasets.files import listing
from beatmeter.datasets.labels import parse_labels
from beatmeter.datasets.tables import SUFFIXES, Row, read_table
from beatmeter.errors import DataError, shown

COLUMNS = ("artist", "title", "meters", "seconds")
_VERIFIED = {"yes": True, "no": False, "": False}
_NAME_BYTES = 80  # of artist and of title each in a file name


@dataclass(frozen=True)
class Work:
    """One work of a catalogue. `meters` maps classes to weights in (0, 1]; `where` is table:line."""

    artist: str
    title: str
    meters: Mapping[str, float]
    seconds: float
    tune: str = ""
    people: tuple[str, ...] = ()
    source: str = ""
    verified: bool = False
    where: str = ""

    @property
    def song(self) -> str:
        """`{artist}_{title}` as its files are named."""
        return f"{file_name(self.artist)}_{file_name(self.title)}"

    @property
    def primary(self) -> str:
        """The heaviest meter; of equals, the one named first."""
        return max(self.meters, key=lambda name: self.meters[name])

    @property
    def query(self) -> str:
        """What is searched for."""
        return f"{self.artist} {self.title}"

    @property
    def names(self) -> tuple[str, ...]:
        """Whatever this work shares with others that must stay in its split: artist, people, tune, in plain
        letters. `Traditional ...` is nobody."""
        people = [
            f"artist {plain(name)}"
            for name in (self.artist, *self.people)
            if not plain(name).startswith("traditional")
        ]
        return (*people, f"tune {plain(self.tune or self.title)}")


def file_name(text: str) -> str:
    """A name for files: letters and digits of any script, everything else as single hyphens, apostrophes
    dropped."""
    folded = unicodedata.normalize("NFC", text)
    kept = "".join("" if c in "'’ʼ`" else c if unicodedata.category(c)[0] in "LNM" else " " for c in folded)
    name = "-".join(kept.split())
    if name and len(name.encode()) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(folded.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name.encode()[: _NAME_BYTES - 9].decode('utf-8', 'ignore')}-{digest}".lstrip("-")


def plain(name: str) -> str:
    """A name for comparing: no case, accents, punctuation or leading article."""
    letters = "".join(
        c
        for c in unicodedata.normalize("NFKD", name.casefold().replace("&", " and "))
        if not unicodedata.combining(c)
    )
    words = "".join(c if c.isalnum() else "" if c in "'’ʼ`" else " " for c in letters).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] == "the" else words) or name.casefold()


def read_catalogue(path: Path, classes: Sequence[str]) -> list[Work]:
    """The works of a catalogue table, or of all tables in a folder. Raises DataError (file:line) for the
    first row that cannot be used, and for two works whose files would have the same names."""
    if not path.exists():
        raise DataError(
            f"there is no catalogue {shown(path)}",
            "A catalogue is a CSV table, or a folder of them: data/catalogues/ has some.",
        )
    tables = [p for p in listing(path) if p.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
    works: dict[str, Work] = {}
    for table in map(read_table, tables):
        lacking = [name for name in COLUMNS if name not in table.columns]
        if lacking:
            raise DataError(
                f"{shown(table.path)} lacks the columns {', '.join(lacking)}",
                f"It has: {', '.join(table.columns)}.",
            )
        for row in table.rows:
            work = _work(row, classes)
            first = works.setdefault(unicodedata.normalize("NFC", work.song).casefold(), work)
            if first is not work:
                raise DataError(
                    f"{work.where}: {work.artist} - {work.title} is named like {first.where}",
                    "Keep one, or change its title.",
                )
    if not works:
        raise DataError(f"{shown(path)} lists no works", f"Its columns are {', '.join(COLUMNS)}.")
    return list(works.values())


def _work(row: Row, classes: Sequence[str]) -> Work:
    if row.problem:
        raise DataError(f"{row.where}: {row.problem}", "Quote cells that hold commas.")
    empty = [name for name in COLUMNS if not row.text(name)]
    if empty:
        raise DataError(f"{row.where}: {empty[0]} is empty", f"Every work needs {', '.join(COLUMNS)}.")
    if any(
        unicodedata.category(c) == "Cs" for cell in row.cells.values() for c in cell
    ):  # what could not be decoded
        raise DataError(f"{row.where}: these bytes are not UTF-8", "Save the table as UTF-8.")
    try:
        meters = parse_labels(row.text("meters"), classes).weights
        seconds = float(row.text("seconds"))
    except DataError as error:
        raise DataError(f"{row.where}: {error.what}", error.hint) from None
    except ValueError:
        raise DataError(
            f"{row.where}: seconds {row.text('seconds')!r} is not a number", "5:24 is 324."
        ) from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise DataError(f"{row.where}: seconds {row.text('seconds')} is not above zero")
    verified = row.text("verified").lower()
    if verified not in _VERIFIED:
        raise DataError(f"{row.where}: verified {verified!r} is neither yes nor no")
    people = tuple(name.strip() for name in row.text("people").split(";") if name.strip())
    return Work(
        row.text("artist"),
        row.text("title"),
        meters,
        seconds,
        row.text("tune"),
        people,
        row.text("source"),
        _VERIFIED[verified],
        row.where,
    )


def groups(works: Iterable[Work]) -> dict[str, str]:
    """The group of every song: works that share an artist, a tune or further people are one group, also
    through others.

    It is called `song:` and its first song in the alphabet.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    songs = {work.song: work for work in works}
    for song, work in songs.items():
        for name in work.names:
            parent[root(name)] = root(f"song {song}")
    found: dict[str, str] = {}
    return {song: f"song:{found.setdefault(root(f'song {song}'), song)}" for song in sorted(songs)}
