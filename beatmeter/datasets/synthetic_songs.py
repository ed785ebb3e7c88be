"""A data set of whole songs on disk, with the exact structure that they were made on.

    OUT/manifest.csv             one row a song; its columns `beats`, `sections` and `annotation` name the
    files below OUT/audio/000017.flac        24 kHz mono, 16 bit, 2 to 5 minutes OUT/beats/000017.beats
    seconds, tab, place in the bar OUT/lab/000017.lab           sections: start, end, letter (equal letters
    are the same material) OUT/annotations/000017.json  all of it: beats, sections with letter and function,
    build-ups and drops OUT/synthetic.json           the settings that made it

Song i of a seed is always the same song with the same split, whatever the number of songs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from beatmeter import __version__
from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.audio.encode import encode
from beatmeter.datasets.annotations import (
    Annotation,
    Events,
    Grid,
    Provenance,
    Spans,
    read_annotation,
    write_annotation,
)
from beatmeter.datasets.synth.songs import Song, render_song
from beatmeter.datasets.synthetic import Made, claim, in_splits, make_set
from beatmeter.errors import DataError
from beatmeter.runtime import atomic
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.runtime.progress import Tick, untold
from beatmeter.settings import SplitConfig

COLUMNS = (
    "id", "file", "class", "group", "split", "source", "form", "style", "tempo", "seconds", "seed",
    "beats", "sections", "annotation",
)  # fmt: skip
GENERATED = Provenance("synthetic", tier=3, confidence=1.0)


@dataclass(frozen=True)
class SongPlan:
    """What decides every song of a set. `format` is flac or wav; `val` and `test` are shares of the songs."""

    seed: int = 0
    sample_rate: int = SAMPLE_RATE
    format: str = "flac"
    val: float = SplitConfig().val
    test: float = SplitConfig().test
    generator: str = __version__
    what: str = "songs"


def synthesise_songs(out: StrPath, songs: int, plan: SongPlan, jobs: int = 1, tick: Tick = untold) -> Made:
    """Write the first `songs` songs of a plan to the folder `out`, `jobs` at a time.

    Songs that are complete already are kept, so a stopped run goes on and a longer set reuses a shorter
    one. Raises DataError when `out` holds a set of another plan or other files.
    """
    out = as_path(out)
    claim(out, asdict(plan), {})
    return make_set(
        out, partial(_ensure, out, plan), in_splits(songs, plan.val, plan.test), COLUMNS, jobs, tick
    )


def _ensure(out: Path, plan: SongPlan, song_of: tuple[int, str]) -> tuple[dict[str, str], bool]:
    """The manifest row of a song, and whether it had to be made."""
    index, split = song_of
    name = f"{index:06d}"
    audio, notes = out / "audio" / f"{name}.{plan.format}", out / "annotations" / f"{name}.json"
    beats, sections = out / "beats" / f"{name}.beats", out / "lab" / f"{name}.lab"
    known = _complete(audio, beats, sections, notes)
    fresh = known is None
    if known is None:
        song = render_song((plan.seed << 32) + index, sample_rate=plan.sample_rate)
        content = encode(song.audio, song.sample_rate, plan.format.upper(), "PCM_16")
        atomic.write_bytes(audio, content)
        known = annotation_of(song, size=len(content))
        write_annotation(beats, known)
        write_annotation(sections, known)
        write_annotation(notes, known)  # last: where it is, the song is complete
    about = known.meta
    seed = about["seed"]
    row = {
        "id": f"song-{seed}",  # its own in every set, so that sets can be joined
        "file": f"audio/{audio.name}",
        "class": about["meter"],
        "group": f"song-{seed}",
        "split": split,
        "source": "synthetic",
        "form": about["form"],
        "style": about["style"],
        "tempo": about["tempo"],
        "seconds": f"{known.duration or 0:.3f}",
        "seed": seed,
        "beats": f"beats/{beats.name}",
        "sections": f"lab/{sections.name}",
        "annotation": f"annotations/{notes.name}",
    }
    return row, fresh


def annotation_of(song: Song, size: int = 0) -> Annotation:
    """What is known of a song: everything, from its first sample to its last. `size` of its file in bytes
    goes along."""
    seconds = len(song.audio) / song.sample_rate
    whole = np.array([[0.0, seconds]])
    led = sorted(
        [(float(time), "drop", 0.0) for time in song.drops]
        + [(float(start), "build-up", float(end - start)) for start, end in song.buildups]
    )
    starts, ends = (np.array([getattr(s, name) for s in song.sections]) for name in ("start", "end"))
    return Annotation(
        id=f"song-{song.seed}",
        duration=seconds,
        grid=Grid(song.beats.round(6), song.beat_numbers, known=whole, provenance=GENERATED),
        sections=Spans(
            starts.round(6),
            ends.round(6),
            tuple(s.letter for s in song.sections),
            tuple(s.function for s in song.sections),
            known=whole,
            provenance=GENERATED,
        ),
        events=Events(
            np.array([time for time, _, _ in led]).round(6),
            tuple(kind for _, kind, _ in led),
            lengths=np.array([length for _, _, length in led]).round(6),
            known=whole,
            provenance=GENERATED,
        ),
        meta={
            "form": song.form,
            "style": song.style,
            "meter": str(song.meter),
            "grouping": "+".join(map(str, song.grouping)),
            "tempo": f"{song.tempo:.2f}",
            "seed": str(song.seed),
            "bytes": str(size),
        },
    )


def _complete(audio: Path, beats: Path, sections: Path, notes: Path) -> Annotation | None:
    """The annotation of a song whose files are all there in full, else None."""
    try:
        known = read_annotation(notes)
        whole = audio.stat().st_size == int(known.meta["bytes"]) and beats.exists() and sections.exists()
    except (OSError, DataError, KeyError, ValueError):
        return None
    return known if whole else None
