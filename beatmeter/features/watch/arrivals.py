"""Which files of a folder are complete and new: by looking again and again.

Polling, because it is the one way that works everywhere: notifications of the kernel do not cross network
file systems, are lost when queues overflow, and still do not tell when a writer is done. A look costs one
`stat` per file.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beatmeter.audio.identity import Stamp, stamp
from beatmeter.datasets.files import audio_names
from beatmeter.features.extraction import Shard
from beatmeter.schema import Track

_AGAIN = 60.0  # seconds until a file without a key (no permission, empty) is tried again


@dataclass(slots=True)
class _File:
    stamp: Stamp
    since: float  # when it was first seen like this
    result: Literal["", "done", "failed"] = ""
    again: float = 0.0  # not to be tried before


class Arrivals:
    """The audio files under `folder` that are in `shard`. A file is complete when its size, its time of
    change and its inode have stayed the same for `settle` seconds; one that changes afterwards is new again.

    `skipped` tells which folders could not be listed at the last look, and why.
    """

    def __init__(self, folder: Path, settle: float, shard: Shard) -> None:
        self.folder, self.settle, self.shard = folder, settle, shard
        self.skipped: dict[str, str] = {}
        self._files: dict[str, _File] = {}
        self._counts: Counter[str] = Counter()

    def look(self, now: float) -> list[Track]:
        """See what is there at the time `now` (seconds of any steady clock): the complete files that have no
        result yet, the longest known first. Raises DataError when the folder itself cannot be listed. Of one
        below it that cannot, what is known stays."""
        found: dict[str, _File] = {}
        unlisted: list[OSError] = []
        for name in audio_names(self.folder, unlisted.append):
            if not self.shard.holds(name) or (here := stamp(self.folder / name)) is None:
                continue
            known = self._files.get(name)
            found[name] = known if known is not None and known.stamp == here else _File(here, now)
        self.skipped = {
            os.path.relpath(e.filename, self.folder): str(e.strerror)
            for e in unlisted
            if not isinstance(e, FileNotFoundError)
        }
        hidden = tuple(Path(name).as_posix() + "/" for name in self.skipped)
        self._files = found | (
            {n: f for n, f in self._files.items() if n.startswith(hidden)} if hidden else {}
        )
        self._counts = Counter(f.result for f in self._files.values())
        ready = [
            n
            for n, f in found.items()
            if now - f.since >= self.settle and now >= f.again and (not f.result or f.again)
        ]
        ready.sort(key=lambda name: found[name].since)
        return [Track(name, self.folder / name) for name in ready]

    def unchanged(self, track: Track) -> bool:
        """Whether the file still is as it was when last looked at."""
        return track.id in self._files and stamp(track.path) == self._files[track.id].stamp

    def finish(self, name: str, good: bool) -> None:
        """This file needs nothing more until it changes."""
        self._set(name, "done" if good else "failed", 0.0)

    def postpone(self, name: str, now: float) -> None:
        """This file cannot be read for now; it counts as failed until it can."""
        self._set(name, "failed", now + _AGAIN)

    def _set(self, name: str, result: Literal["done", "failed"], again: float) -> None:
        if name in self._files:
            file = self._files[name]
            self._counts[file.result] -= 1
            self._counts[result] += 1
            file.result, file.again = result, again

    def counts(self) -> tuple[int, int, int]:
        """How many files are done, wait, and failed."""
        return self._counts["done"], self._counts[""], self._counts["failed"]
