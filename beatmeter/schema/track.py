"""Tracks: audio files and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import DataError
from beatmeter.schema.checks import require

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Track:
    """One audio file and what is known of it.

    `labels` maps a class name to its weight in (0, 1] (several for polyrhythm; empty when unlabelled);
    `primary` is the heaviest class, kept explicitly because an argmax over ties would silently pick one.
    Tracks of one `group` (song, tune, artist) never cross splits. `extra` holds further columns of the table
    it came from.
    """

    id: str
    path: Path
    labels: Mapping[str, float] = field(default_factory=dict)
    primary: str | None = None
    group: str = ""
    source: str = ""
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.id), f"a track of {self.path} has an empty id")
        for name, weight in self.labels.items():
            require(0 < weight <= 1, f"track {self.id}: weight {weight} of label {name!r} is outside (0, 1]")
        if self.primary is None and len(self.labels) == 1:
            object.__setattr__(self, "primary", next(iter(self.labels)))
        require(
            (self.primary is None) == (not self.labels)
            and (self.primary is None or self.primary in self.labels),
            f"track {self.id}: primary {self.primary!r} is not one of its labels {sorted(self.labels)}",
        )
        require(
            self.split is None or self.split in SPLITS,
            f"track {self.id}: split {self.split!r} is not one of {', '.join(SPLITS)}",
        )
        if not self.group:
            object.__setattr__(self, "group", self.id)


def label_table(
    tracks: Sequence[Track], classes: Sequence[str]
) -> tuple[Float[np.ndarray, "track klass"], Int[np.ndarray, " track"]]:
    """Label weights, 0 for absent, and the index of each primary class, -1 without one. Raises DataError for
    a label that is none of `classes`."""
    at = {name: i for i, name in enumerate(classes)}
    targets, primary = np.zeros((len(tracks), len(at))), np.full(len(tracks), -1)
    for row, track in enumerate(tracks):
        foreign = [name for name in track.labels if name not in at]
        if foreign:
            raise DataError(
                f"track {track.id} has the label {foreign[0]!r}, the task knows {', '.join(classes)}",
                "See `beatmeter data check`.",
            )
        for name, weight in track.labels.items():
            targets[row, at[name]] = weight
        if track.primary is not None:
            primary[row] = at[track.primary]
    return targets, primary
