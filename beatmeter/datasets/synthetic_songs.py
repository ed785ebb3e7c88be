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
from beatmeter.datasets.synth.draws import stream
from beatmeter.datasets.synth.songs import Song, render_song
from beatmeter.datasets.synth.songs.forms import form_named
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
LEAST = 0.05  # seconds of a section or a build-up that an excerpt keeps
GENERATED = Provenance("synthetic", tier=3, confidence=1.0)


@dataclass(frozen=True)
class SongPlan:
    """What decides every song of a set. `format` is flac or wav; `val` and `test` are shares of the songs;
    `excerpt` keeps so many seconds of each, 0 all of it; `form` names the form of all songs, empty draws
    them."""

    seed: int = 0
    sample_rate: int = SAMPLE_RATE
    format: str = "flac"
    val: float = SplitConfig().val
    test: float = SplitConfig().test
    generator: str = __version__
    what: str = "songs"
    excerpt: float = 0.0
    form: str = ""


def synthesise_songs(out: StrPath, songs: int, plan: SongPlan, jobs: int = 1, tick: Tick = untold) -> Made:
    """Write the first `songs` songs of a plan to the folder `out`, `jobs` at a time.

    Songs that are complete already are kept, so a stopped run goes on and a longer set reuses a shorter
    one. Raises DataError when `out` holds a set of another plan or other files, and ConfigError for a form
    that is none.
    """
    out = as_path(out)
    if plan.form:
        form_named(plan.form)  # before there is a folder
    unsaid = {"excerpt": SongPlan.excerpt, "form": SongPlan.form}  # by sets of earlier versions
    claim(out, asdict(plan), unsaid)
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
        seed_of_song = (plan.seed << 32) + index
        song = render_song(seed_of_song, form=plan.form or None, sample_rate=plan.sample_rate)
        start, end = excerpt_of(song, plan.excerpt)
        samples = slice(round(start * song.sample_rate), round(end * song.sample_rate))
        content = encode(song.audio[samples], song.sample_rate, plan.format.upper(), "PCM_16")
        atomic.write_bytes(audio, content)
        known = annotation_of(song, size=len(content), within=(start, end))
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


def excerpt_of(song: Song, seconds: float) -> tuple[float, float]:
    """Where the excerpt of so many seconds begins and ends, on samples: its place is the song's own. All of
    a song that is not longer, and of any song where `seconds` is 0."""
    total = len(song.audio) / song.sample_rate
    if not 0 < seconds < total:
        return 0.0, total
    first = int(stream(song.seed, "excerpt").uniform(0, total - seconds) * song.sample_rate)
    return first / song.sample_rate, min(total, first / song.sample_rate + seconds)


def annotation_of(song: Song, size: int = 0, within: tuple[float, float] | None = None) -> Annotation:
    """What is known of a song, or of the excerpt of it from `within[0]` to `within[1]` seconds: everything,
    from its first sample to its last, with times from there. `size` of its file in bytes goes along."""
    begin, stop = within or (0.0, len(song.audio) / song.sample_rate)
    seconds = stop - begin
    whole = np.array([[0.0, seconds]])
    led = sorted(
        [(float(time), float(time), "drop") for time in song.drops if begin <= time < stop]
        + [
            (max(float(start), begin), min(float(end), stop), "build-up")
            for start, end in song.buildups
            if min(end, stop) - max(start, begin) >= LEAST
        ]
    )
    sections = [s for s in song.sections if min(s.end, stop) - max(s.start, begin) >= LEAST]
    starts = np.maximum(np.array([s.start for s in sections]), begin) - begin
    ends = np.minimum(np.array([s.end for s in sections]), stop) - begin
    heard = (song.beats >= begin) & (song.beats < stop)
    return Annotation(
        id=f"song-{song.seed}",
        duration=seconds,
        grid=Grid(
            (song.beats[heard] - begin).round(6), song.beat_numbers[heard], known=whole, provenance=GENERATED
        ),
        sections=Spans(
            starts.round(6),
            ends.round(6),
            tuple(s.letter for s in sections),
            tuple(s.function for s in sections),
            known=whole,
            provenance=GENERATED,
        ),
        events=Events(
            np.array([start - begin for start, _, _ in led]).round(6),
            tuple(kind for _, _, kind in led),
            lengths=np.array([end - start for start, end, _ in led]).round(6),
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
