"""Builds a folder in the shape of METER2800 in which everything that goes wrong with such folders has gone
wrong.

`build(folder)` writes tables and audio and returns what must come of every row, by name: `kept` (id ->
primary class and split) and `excluded` (id -> kind of exclusion). Labels say .wav; the files are whatever
they are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 22_050
SECONDS = 2.5
WORDS = {"3": "three", "4": "four", "5": "five", "7": "seven"}
ALT = {"3": "6", "4": "2", "5": "10", "7": "14"}


def music(seed: int, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A different little tune for every seed: decaying tones on a steady pulse, (sample,) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    period = rng.uniform(0.2, 0.5)
    tone = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(100, 2000, 3))
    return (0.2 * tone * np.exp(-8 * (t % period)) + 0.003 * rng.standard_normal(len(t))).astype(np.float32)


def encode(
    wave: np.ndarray, suffix: str, rate: int = RATE, subtype: str | None = None, **options: Any
) -> bytes:
    """The wave as the bytes of a .wav, .flac, .ogg or .mp3 file; `options` are those of soundfile.write."""
    data = io.BytesIO()
    soundfile.write(data, wave, rate, format=suffix.lstrip(".").upper(), subtype=subtype, **options)
    return data.getvalue()


@dataclass
class MeterFolder:
    """What was written, and what must come of it."""

    path: Path
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[tuple[str, str, str, str]]] = field(
        default_factory=lambda: {"train": [], "val": [], "test": []}
    )

    def row(self, split: str, clip: str, meter: str, label: str | None = None) -> None:
        """A row of a table."""
        self.rows[split].append(
            (f"/{clip}.wav", WORDS.get(meter, meter) if label is None else label, meter, ALT.get(meter, ""))
        )

    def file(self, name: str, data: bytes) -> None:
        """A file under the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def good(self, split: str, clip: str, meter: str, seed: int, suffix: str = ".mp3") -> None:
        """A clip that nothing is wrong with."""
        self.row(split, clip, meter)
        self.file(clip + suffix, encode(music(seed), suffix))
        self.kept[clip] = (meter, split)

    def bad(
        self,
        split: str,
        clip: str,
        kind: str,
        data: bytes | None,
        suffix: str = ".mp3",
        meter: str = "4",
        label: str | None = None,
    ) -> None:
        """A clip that must be excluded for the reason `kind`; no file when there is no `data`."""
        self.row(split, clip, meter, label)
        if data is not None:
            self.file(clip + suffix, data)
        self.excluded[clip] = kind

    def write_tables(self, suffix: str = ".tab", classes: str = "4") -> None:
        """The tables: tab-separated with quotes, or comma-separated without."""
        for split, rows in self.rows.items():
            header = ("filename", "label", "meter", "alt_meter")
            if suffix == ".tab":
                lines = [
                    "\t".join(f'"{c}"' for c in header),
                    *("\t".join([f'"{f}"', f'"{w}"', m, a]) for f, w, m, a in rows),
                ]
            else:
                lines = [",".join(header), *(",".join(row) for row in rows)]
            self.file(f"data_{split}_{classes}_classes{suffix}", "\n".join([*lines, ""]).encode())


def build(path: Path) -> MeterFolder:
    """Write the folder; about forty rows, a second of work."""
    f = MeterFolder(path)
    seed = 0
    for split, per_class in (("train", 3), ("val", 1), ("test", 1)):
        for meter in ("3", "4", "5", "7"):
            for n in range(per_class):
                f.good(split, f"{('FMA', 'MAG', 'OWN')[n % 3]}/{split}{meter}{n}", meter, seed)
                seed += 1
    f.good("train", "FMA/0001", "3", 100)  # the same stem in two sources: two clips
    f.good("train", "MAG/0001", "4", 101, ".flac")
    f.good("test", "OWN/blues.00001", "4", 102, ".wav")  # a stem with a dot
    f.row("test", "own/CASE", "5")  # another case on disk, in a folder that the archive nests
    f.file("OWN/OWN/case.MP3", encode(music(103), ".mp3"))
    f.kept["own/CASE"] = ("5", "test")
    f.file("FMA/._0001.mp3", b"\0\5\x16\7 AppleDouble")
    f.file("__MACOSX/FMA/0001.mp3", b"junk")

    whole = encode(music(104, 6.0), ".mp3")
    f.bad("train", "FMA/cut", "truncated", whole[: len(whole) // 2])
    f.bad("test", "FMA/cutflac", "truncated", encode(music(105, 6.0), ".flac")[:60_000], ".flac")
    f.bad("train", "GTZAN/blues.00000", "missing", None)
    f.bad("test", "GTZAN/rock.00007", "missing", None)
    f.bad("val", "MAG/gone", "missing", None)
    f.bad("train", "MAG/silent", "silent", encode(np.zeros(RATE * 3, np.float32), ".wav"), ".wav")
    f.bad("train", "MAG/constant", "silent", encode(np.full(RATE * 3, 0.25, np.float32), ".wav"), ".wav")
    f.bad("train", "MAG/empty", "empty", b"")
    f.bad("train", "MAG/text", "unreadable", b"This is no music.\n" * 400)
    f.bad("test", "OWN/short", "short", encode(music(106, 0.4), ".wav"), ".wav")
    hurt = music(107)
    hurt[1000] = np.nan
    f.bad("train", "OWN/nan", "damaged", encode(hurt, ".wav", subtype="FLOAT"), ".wav")
    f.bad("train", "OWN/0143", "non-music", encode(music(108), ".mp3"))
    f.bad("train", "FMA/strange", "label", encode(music(109), ".mp3"), meter="13")
    f.bad("train", "FMA/contrary", "label", encode(music(110), ".mp3"), meter="4", label="three")

    copied = encode(music(111), ".mp3")
    f.row("train", "FMA/first", "5")
    f.file("FMA/first.mp3", copied)
    f.kept["FMA/first"] = ("5", "train")
    f.bad("train", "MAG/second", "copy", copied, meter="5")
    disputed = encode(music(112), ".mp3")
    f.bad("val", "FMA/says3", "conflict", disputed, meter="3")
    f.bad("val", "FMA/says4", "conflict", disputed, meter="4")
    f.bad("train", "FMA/leak", "leak", (path / "FMA/test30.mp3").read_bytes(), meter="3")
    f.row("train", "../../etc/secret", "4")
    f.excluded["/../../etc/secret.wav"] = "outside"
    f.write_tables()
    return f
