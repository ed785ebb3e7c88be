"""What a reviewer of beats gets: a CSV file to fill in, and a page that plays every place in doubt and fills
it in.

The page is one file that works offline. Seconds of audio around every place are inside it, because a browser
puts clicks exactly onto a beat only in samples that it holds, and scripts may not read files beside a page;
the whole track is a link to the file where it lies. It shows the annotated beats and the strength of onsets,
and what the model suggests only when it is asked: a click at a suggested time is easily heard as a beat.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from beatmeter.audio.decode import SAMPLE_RATE, load
from beatmeter.audio.encode import encode
from beatmeter.datasets.annotations.edits import CLOSEST
from beatmeter.datasets.annotations.records import Grid
from beatmeter.datasets.decisions import BEAT_DECISION, DROP, KEEP, DecisionTable
from beatmeter.errors import DataError, shown
from beatmeter.experiments.audit.events import RATE, Doubt
from beatmeter.experiments.audit.review import link
from beatmeter.runtime.atomic import write_text
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.runtime.templates import render
from beatmeter.schema import Track

COLUMNS = ("id", "kind", "time", "suggested", "quality", BEAT_DECISION, "comment")
SECONDS = 6.0  # of audio around a place
STRENGTH_RATE = 100  # values a second of the strength of onsets


def to_csv(doubts: Sequence[Doubt]) -> str:
    """The file to fill in, in the order of `doubts`: `new time` takes keep, drop, suggested, or seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for d in doubts:
        writer.writerow([d.id, d.kind, _time(d.time), _time(d.suggested), f"{d.quality:.4f}", "", ""])
    return text.getvalue()


def _time(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds == seconds else ""


@dataclass(frozen=True)
class Place:
    """A doubt with what a reviewer sees and hears of it: from `start` (s) on the audio (a data URI), the
    annotated beats there with their places in the bar, the strength of onsets (STRENGTH_RATE) and the model's
    curve (RATE), both from 0 to 100. `rank` counts from the worst."""

    doubt: Doubt
    rank: int
    track: Track
    start: float
    seconds: float
    sound: str
    beats: Sequence[tuple[float, int]]
    onsets: Sequence[int]
    heard: Sequence[int]
    gap: tuple[float, float] | None

    @property
    def cells(self) -> dict[str, str]:
        """What the doubt is in the CSV file, by column."""
        row = next(csv.DictReader(io.StringIO(to_csv([self.doubt]))))
        return {name: row[name] for name in COLUMNS[:5]}

    @property
    def at(self) -> str:
        """Where it is in the track: 1:23.4."""
        middle = self.start + self.seconds / 2 if np.isnan(self.doubt.time) else self.doubt.time
        return f"{int(middle // 60)}:{middle % 60:04.1f}"


def places(
    doubts: Sequence[Doubt],
    tracks: Sequence[Track],
    grids: Mapping[str, Grid],
    curves: Mapping[str, Float[np.ndarray, " frame"]],
    progress: Reporter = SILENT,
) -> list[Place]:
    """The doubts by track, the track with the worst first, and in a track by time: a reviewer hears a track
    once. Raises AudioError."""
    by_id = {track.id: track for track in tracks}
    own: dict[str, list[tuple[int, Doubt]]] = {}
    for rank, doubt in enumerate(doubts):
        own.setdefault(doubt.id, []).append((rank, doubt))
    found = []
    with progress.track("cutting excerpts", len(own), "tracks") as tick:
        for id, ranked in own.items():
            wave = load(by_id[id].path)
            made = [_place(d, rank, by_id[id], wave, grids[id], curves[id]) for rank, d in ranked]
            found += sorted(made, key=lambda place: place.start)
            tick(1)
    return found


def _place(
    doubt: Doubt,
    rank: int,
    track: Track,
    wave: Float32[np.ndarray, " sample"],
    grid: Grid,
    curve: Float[np.ndarray, " frame"],
) -> Place:
    middle, gap = doubt.time, None
    if np.isnan(middle):  # the middle is of the gap, or blunt: not the time that the model suggests
        after = int(np.searchsorted(grid.times, doubt.suggested))
        low = float(grid.times[after - 1]) if after > 0 else 0.0
        high = float(grid.times[after]) if after < len(grid) else len(wave) / SAMPLE_RATE
        middle = (low + high) / 2 if high - low < SECONDS - 1 else float(round(doubt.suggested))
        gap = low, high
    start = max(0.0, min(middle - SECONDS / 2, len(wave) / SAMPLE_RATE - SECONDS))
    first = round(start * SAMPLE_RATE)
    part = wave[first : first + round(SECONDS * SAMPLE_RATE)]
    end = start + len(part) / SAMPLE_RATE
    strength = onset_strength(part)
    inside = (grid.times >= start) & (grid.times < end)
    heard = np.interp(np.arange(start, end, 1 / RATE), np.arange(len(curve)) / RATE, curve)
    return Place(
        doubt,
        rank,
        track,
        first / SAMPLE_RATE,
        len(part) / SAMPLE_RATE,
        sound(part),
        list(zip(grid.times[inside].tolist(), grid.places[inside].tolist(), strict=True)),
        np.round(100 * strength).astype(int).tolist(),
        np.round(100 * heard).astype(int).tolist(),
        None if gap is None else (max(gap[0], start), min(gap[1], end)),
    )


def sound(wave: Float32[np.ndarray, " sample"]) -> str:
    """Audio as a data URI: Ogg Vorbis, which browsers decode to the very samples, with no delay."""
    peak = float(np.abs(wave).max(initial=0.0))
    data = encode(wave * np.float32(0.6 / peak) if peak > 0 else wave, SAMPLE_RATE, "OGG", "VORBIS")
    return "data:audio/ogg;base64," + base64.b64encode(data).decode("ascii")


def onset_strength(wave: Float32[np.ndarray, " sample"]) -> Float[np.ndarray, " value"]:
    """The mean rise of log mel bands, STRENGTH_RATE values a second in [0, 1]; the largest is 1."""
    import librosa

    hop = SAMPLE_RATE // STRENGTH_RATE
    mel = librosa.feature.melspectrogram(y=wave, sr=SAMPLE_RATE, n_fft=512, hop_length=hop, n_mels=32)
    logs = np.log1p(1000 * np.sqrt(mel))
    rise = np.maximum(np.diff(logs, axis=1, prepend=logs[:, :1]), 0).mean(axis=0)
    strength: np.ndarray = rise / max(float(rise.max(initial=0.0)), 1e-9)
    return strength


@dataclass(frozen=True)
class BeatReview:
    """The whole review: doubts, the worst first, and the same as places in the order of the page."""

    title: str
    doubts: Sequence[Doubt]
    places: Sequence[Place]

    def to_csv(self) -> str:
        """The file to fill in, worst first."""
        return to_csv(self.doubts)

    def to_html(self, folder: Path, show_guess: bool = False) -> str:
        """The page, to lie in `folder`: links to whole tracks are relative to it."""
        tracks = len({place.track.id for place in self.places})
        return render(
            "beatmeter.experiments.audit",
            "beats.html",
            title=self.title,
            about=f"{count(len(self.places), 'beat')} to check in {count(tracks, 'track')}",
            key=hashlib.sha256(self.to_csv().encode("utf-8", "surrogateescape")).hexdigest()[:16],
            columns=",".join(COLUMNS),
            words=f"{KEEP[0]},{DROP[0]}",
            closest=CLOSEST,
            rates=f"{STRENGTH_RATE},{RATE}",
            places=self.places,
            link=partial(link, folder=folder),
            shown=shown,
            show_guess=show_guess,
        )


def require_free(out: Path) -> None:
    """Raise DataError when a review lies where one is to be written: somebody's work may be in it. A CSV
    file without a decision may be written again."""
    if out.suffix.lower() == ".csv":
        if out.is_file():
            rows = DecisionTable.read(out).rows
            decided = sum(bool(row.text(BEAT_DECISION)) for row in rows)
            if decided:
                what = f"{shown(out)} holds {count(decided, 'decision')}"
                raise DataError(what, "Name another file with --out, or move it away.")
    elif (out / "review.csv").exists():
        raise DataError(
            f"{shown(out)} holds a review already", "Name another folder with --out, or move it away."
        )


def write_review(review: BeatReview, out: Path, show_guess: bool = False) -> None:
    """Write `review.html` and `review.csv` to the folder `out`. Raises DataError when it holds a review
    already, and when it cannot be written."""
    require_free(out)
    try:
        write_text(out / "review.html", review.to_html(out, show_guess))
        write_text(out / "review.csv", review.to_csv())
    except OSError as error:
        raise DataError(
            f"cannot write to {shown(out)}: {error.strerror or error}", "Check the disk and the permissions."
        ) from None
