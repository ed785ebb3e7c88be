"""A folder that files arrive in: many very short ones, in any order, some of them slowly, renamed, moved,
changed, broken."""

from __future__ import annotations

import hashlib
import io
import random
import time
from pathlib import Path

import numpy as np
import soundfile


def clip(number: int) -> bytes:
    """A WAV file of 1 to 1.2 s at 8 kHz that no other number gives."""
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    soundfile.write(
        file,
        0.2 * rng.standard_normal(8_000 + int(rng.integers(0, 1_600))),
        8_000,
        subtype="PCM_16",
        format="WAV",
    )
    return file.getvalue()


class Day:
    """A day's arrivals in `folder`. `arrive` does the next of them; `wanted` are the numbers of the clips
    that must have features in the end, `broken` the names that cannot. `paused` are the SHA-256 of half files
    whose other half came only `settle` seconds later, as on a busy machine: a watcher may take them for
    complete."""

    def __init__(self, folder: Path, clips: int, seed: int, settle: float) -> None:
        self.folder, self.rng, self.settle = folder, random.Random(seed), settle
        self.left = list(range(clips))
        self.rng.shuffle(self.left)
        self.wanted: set[int] = set()
        self.broken: set[str] = set()
        self.places: dict[Path, int] = {}
        self.half: list[tuple[Path, bytes, bytes, float]] = []
        self.paused: set[str] = set()
        self.moves = 0

    def arrive(self) -> bool:
        """Do one thing; False when the day is over."""
        while self.half and (self.rng.random() < 0.3 or not self.left):
            path, first, rest, since = self.half.pop(0)
            with path.open("ab") as file:
                file.write(rest)
            if time.monotonic() - since >= self.settle:
                self.paused.add(hashlib.sha256(first).hexdigest())
            return True
        if not self.left:
            return False
        number = self.left.pop()
        content = clip(number)
        folder = self.folder / f"artist {number % 7}"
        folder.mkdir(exist_ok=True)
        path = folder / f"{number}.wav"
        kind = self.rng.random()
        if kind < 0.1:  # written slowly: the rest comes later
            cut = self.rng.randrange(1, len(content))
            self.half.append((path, content[:cut], content[cut:], time.monotonic()))
            path.write_bytes(content[:cut])
        elif kind < 0.3:  # written beside, then renamed
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(content)
            part.rename(path)
        elif kind < 0.33:
            path = path.with_suffix(".mp3")
            path.write_bytes(b"this is no music %d" % number)
            self.broken.add(path.relative_to(self.folder).as_posix())
            return True
        else:
            path.write_bytes(content)
        self.wanted.add(number)
        self.places[path] = number
        if kind <= 0.8:
            return True
        writing = {h for h, *_ in self.half}
        settled = [p for p in self.places if p not in writing]
        if kind > 0.85 and settled:  # somebody tidies up
            old = self.rng.choice(settled)
            new = self.folder / "moved" / f"{self.moves} {old.name}"
            new.parent.mkdir(exist_ok=True)
            old.rename(new)
            self.places[new] = self.places.pop(old)
            self.moves += 1
        elif settled:  # a better version
            old = self.rng.choice(settled)
            self.places[old] = 100_000 + number
            self.wanted.add(100_000 + number)
            old.write_bytes(clip(100_000 + number))
        return True

    def files(self) -> int:
        """How many there are now."""
        return len(self.places) + len(self.broken)
