"""Where the files of a run lie, from any folder: paths were given from the folder in which it was begun, and
things move.

A run remembers two folders, its own and the one it was begun in. A path of its settings is looked for, in
this order: beside the run as it lay beside it then (both were moved together), where it lay then (the run was
moved), and from here as it was given.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Locations:
    """The absolute paths of a run's folder (`run`) and of the working folder (`cwd`) when it was begun."""

    run: str
    cwd: str

    @classmethod
    def now(cls, run: Path) -> Locations:
        """Of a run that begins."""
        return cls(os.path.realpath(run), str(Path.cwd()))

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)

    def candidates(self, given: str, run: Path) -> list[str]:
        """Where `given`, a path of the settings, may be now that the run lies in `run`; without doubles, the
        best first. One that is `given` itself, seen from here, stays as it was given."""
        if not given or "://" in given or given.startswith("~"):
            return [given]
        then = os.path.normpath(os.path.join(self.cwd, given))  # noqa: PTH118 - `..` is taken away without asking the disk
        beside = os.path.normpath(os.path.join(os.path.realpath(run), os.path.relpath(then, self.run)))  # noqa: PTH118
        here = os.path.abspath(given)  # noqa: PTH100
        return [given if path == here else path for path in dict.fromkeys((beside, then, here))]

    def find(self, given: str, run: Path) -> str | None:
        """The first of `candidates` that is there."""
        return next((path for path in self.candidates(given, run) if Path(path).exists()), None)
