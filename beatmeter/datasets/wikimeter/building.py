"""From a catalogue to a folder of labelled segments: search, refuse what does not fit, download, cut,
record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from beatmeter.audio.decode import measure
from beatmeter.audio.identity import track_key
from beatmeter.datasets.wikimeter.catalogue import Work
from beatmeter.datasets.wikimeter.downloader import Candidate, Downloader, DownloadError
from beatmeter.datasets.wikimeter.folder import SOURCE, Record, Refusal, Segment, Source, WikiFolder
from beatmeter.datasets.wikimeter.segments import SHORTEST, cut, require_ffmpeg, spans
from beatmeter.errors import AudioError, BeatmeterError, shown
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import Tick, untold

SHORTER, LONGER = 0.5, 2.0  # accepted lengths, as shares of the expected one
CANDIDATES = 5


@dataclass(frozen=True)
class Step:
    """What a run would do for one work: nothing (`done`), or look at its source or at what `query` finds."""

    work: Work
    done: bool

    @property
    def accepted(self) -> tuple[float, float]:
        """Shortest and longest accepted length, seconds."""
        return SHORTER * self.work.seconds, LONGER * self.work.seconds

    @property
    def segments(self) -> int:
        """How many segments a file of the expected length gives."""
        return len(spans(self.work.seconds))


@dataclass
class Outcome:
    """What a run did: works made, works that were there, works that no candidate fitted, segments in the
    folder."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)  # song: last reason
    segments: int = 0


def plan(works: Iterable[Work], out: Path) -> list[Step]:
    """What `build` would do, without doing it."""
    folder = WikiFolder(out)
    records = folder.records()
    return [
        Step(
            work,
            (r := records.get(work.song)) is not None and folder.whole(r) and _still_fits(work, r.source),
        )
        for work in works
    ]


def build(
    works: Sequence[Work],
    out: Path,
    downloader: Downloader,
    candidates: int = CANDIDATES,
    jobs: int = 1,
    tick: Tick = untold,
) -> Outcome:
    """Make the segments of all `works` in the folder `out`, `jobs` works at a time. `tick(1)` after each.

    Works that are there stay, with the labels of this catalogue; works of earlier runs that are not in it
    stay as well. Safe to stop at any moment and to run again. Raises DataError when downloads or ffmpeg are
    not to be had, when `out` is no such folder, or when it cannot be written.
    """
    downloader.require()
    require_ffmpeg()
    folder, outcome = WikiFolder(out), Outcome()
    with folder.locked():
        records, todo = folder.records(), []
        for work in works:
            before = records.get(work.song, Record(work))
            known = replace(before, work=work)
            if not (folder.whole(known) and _still_fits(work, known.source)):
                known = Record(work, refusals=known.refusals)
            if known != before:
                folder.commit(known)
            records[work.song] = known
            if known.source is None:
                todo.append(known)
            else:
                outcome.kept.append(work.song)
                tick(1)
        folder.write_tables(records.values())
        while todo:
            todo = _round(todo, folder, records, downloader, candidates, jobs, tick, outcome)
        outcome.segments = sum(len(r.segments) for r in records.values())
    return outcome


def _still_fits(work: Work, source: Source | None) -> bool:
    """Whether what was downloaded earlier is what the catalogue asks for now."""
    return (
        source is not None
        and SHORTER * work.seconds <= source.seconds <= LONGER * work.seconds
        and work.source in ("", source.url)
    )


def _round(
    todo: Sequence[Record],
    folder: WikiFolder,
    records: dict[str, Record],
    downloader: Downloader,
    candidates: int,
    jobs: int,
    tick: Tick,
    outcome: Outcome,
) -> list[Record]:
    """Try every work once. Returns those that took what another work of the same round had taken: they must
    look further."""
    again: list[Record] = []
    tasks = ((record, folder.staging()) for record in todo)
    owners = _owners(records.values())
    for record, found in zip(
        todo,
        ordered(partial(_acquire, downloader, candidates, owners), tasks, min(jobs, len(todo))),
        strict=True,
    ):
        if isinstance(found, Crash):
            found = Found((*record.refusals, _refusal("", "", "the process that worked on it died", True)))
        owner = _owners(records.values()).get(found.source.sha256) if found.source else None
        if found.source and owner:
            twin = _refusal(found.source.url, found.source.title, f"it is the same audio as {owner}", False)
            again.append(replace(record, refusals=(*found.refusals, twin)))
            folder.commit(again[-1])
            continue
        segments = tuple(
            Segment(f"{SOURCE}/{file.name}", start, end, file.stat().st_size)
            for start, end, file in found.pieces
        )
        made = Record(record.work, found.source, segments, found.refusals)
        folder.commit(made, [file for _, _, file in found.pieces])
        records[record.work.song] = made
        if found.source:
            outcome.made.append(record.work.song)
        else:
            outcome.without[record.work.song] = found.refusals[-1].reason
        folder.write_tables(records.values())
        tick(1)
    return again


def _owners(records: Iterable[Record]) -> dict[str, str]:
    """Which song has taken an address, or audio with a hash."""
    return {name: r.work.song for r in records if r.source for name in (r.source.url, r.source.sha256)}


@dataclass(frozen=True)
class Found:
    """What came of one work: every refusal that still holds, and, when a candidate fitted, its source and its
    staged segments."""

    refusals: tuple[Refusal, ...]
    source: Source | None = None
    pieces: tuple[tuple[float, float, Path], ...] = ()


class _UnfitError(BeatmeterError):
    """A candidate that does not fit. `again`: the reason may pass."""

    def __init__(self, reason: str, again: bool) -> None:
        self.again = again
        super().__init__(reason)


def _acquire(downloader: Downloader, limit: int, owners: dict[str, str], task: tuple[Record, Path]) -> Found:
    """Try the candidates of a work, best first, until one fits. Runs in a process of its own when there are
    several jobs."""
    record, staging = task
    refusals = [r for r in record.refusals if not r.again]
    known = {r.url for r in refusals}
    try:
        for candidate in _candidates(downloader, record.work, limit):
            if candidate.url in known:
                continue
            known.add(candidate.url)
            try:
                source, pieces = _try(downloader, record.work, candidate, owners, staging)
            except _UnfitError as error:
                refusals.append(_refusal(candidate.url, candidate.title, error.what, error.again))
                continue
            return Found(tuple(refusals), source, tuple(pieces))
    except DownloadError as error:
        refusals.append(_refusal("", "", f"the search failed: {error.what}", True))
    if not refusals:
        refusals.append(_refusal("", "", "the search found nothing", True))
    return Found(tuple(refusals))


def _candidates(downloader: Downloader, work: Work, limit: int) -> Iterator[Candidate]:
    """The catalogue's own source first; the search is asked when that does not do."""
    if work.source:
        yield Candidate(work.source)
    yield from downloader.search(work.query, limit)


def _try(
    downloader: Downloader, work: Work, candidate: Candidate, owners: dict[str, str], staging: Path
) -> tuple[Source, list[tuple[float, float, Path]]]:
    """Download one candidate and cut it. Raises _UnfitError."""
    if candidate.url in owners:
        raise _UnfitError(f"{owners[candidate.url]} has it already", True)
    if candidate.seconds is not None:
        _require_length(work, candidate.seconds, again=True)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        fetched = downloader.fetch(candidate.url, staging, LONGER * work.seconds)
    except DownloadError as error:
        raise _UnfitError(f"the download failed: {error.what}", True) from None
    try:
        seconds = measure(fetched.path)
        digest = track_key(fetched.path)
        _require_length(work, seconds, again=False)
        if digest in owners:
            raise _UnfitError(f"it is the same audio as {owners[digest]}", False)
        pieces = cut(fetched.path, seconds, work.song, staging)
    except AudioError as error:
        reason = error.what.replace(shown(fetched.path), "it")
        raise _UnfitError(
            f"{error.kind}: {reason}", error.kind not in ("short", "silent", "damaged")
        ) from None
    fetched.path.unlink(missing_ok=True)
    title = fetched.title or candidate.title
    return Source(
        candidate.url, title, fetched.uploader, fetched.licence, round(seconds, 3), digest, _now()
    ), pieces


def _require_length(work: Work, seconds: float, again: bool) -> None:
    shortest, longest = SHORTER * work.seconds, LONGER * work.seconds
    if not shortest <= seconds <= longest:
        raise _UnfitError(
            f"it lasts {clock(seconds)}, expected {clock(work.seconds)} ({clock(shortest)} to "
            f"{clock(longest)})",
            again,
        )
    if not spans(seconds):
        raise _UnfitError(f"it lasts {seconds:.1f} s, a segment needs {SHORTEST:g} s", again)


def clock(seconds: float) -> str:
    """Seconds as `5:24` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _refusal(url: str, candidate: str, reason: str, again: bool) -> Refusal:
    return Refusal(url, candidate, shown(reason), _now(), again)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
