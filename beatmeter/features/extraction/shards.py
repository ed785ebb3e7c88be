"""A part of a list of tracks that needs nobody to hand it out: `2/8` is the second of eight, the same on
every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from beatmeter.errors import ConfigError, shown
from beatmeter.schema import Track

_FORM = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """Number `index` (from 1) of `count`. A track belongs to one shard by its id alone, so it stays there
    when others come or go."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigError(
                f"there is no shard {self}",
                "Shards are numbered from 1: of four they are 1/4, 2/4, 3/4 and 4/4.",
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n`. Raises ConfigError."""
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ConfigError(
                f"{shown(text)!r} names no shard", "Give its number and how many there are, for instance 2/8."
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, name: str) -> bool:
        """Whether the track with this id is in it: sha256 of the id modulo the number of shards."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def of(self, tracks: Iterable[Track]) -> tuple[Track, ...]:
        """Those tracks that are in it, in their order."""
        return tuple(track for track in tracks if self.holds(track.id))
