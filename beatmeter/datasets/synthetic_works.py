"""A data set of works in several versions on disk: what similarity is learned from and judged by.

    OUT/manifest.csv               one row a clip; `work` says what belongs together, and is the group
    OUT/audio/000017-2.flac        24 kHz mono, 16 bit: version 2 of work 17
    OUT/beats/000017-2.beats       felt beats: seconds, tab, number in the bar (1 is the downbeat)
    OUT/annotations/000017-2.json  all else that is known
    OUT/synthetic.json             the settings that made it

Version k of work i of a seed is always the same clip with the same split, whatever the number of works and
versions. The columns `version`, `manner`, `key` (the tonic), `transpose` (semitones), `tempo_ratio` and
`start_s` say how a clip differs from version 0 of its work, which is played as written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from beatmeter import __version__
from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.datasets.synth.versions import render_version
from beatmeter.datasets.synthetic import (
    Made,
    claim,
    class_of,
    clip_files,
    complete,
    in_splits,
    make_set,
    write_clip,
)
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.runtime.progress import Tick, untold
from beatmeter.settings import SplitConfig

COLUMNS = (
    "id", "file", "class", "group", "split", "source", "work", "version", "manner", "style", "key",
    "transpose", "tempo_ratio", "start_s", "tempo", "seconds", "seed", "beats",
)  # fmt: skip
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


@dataclass(frozen=True)
class WorkPlan:
    """What decides every clip of a set. `format` is flac or wav; `val` and `test` are shares of the works."""

    seed: int = 0
    seconds: float = 20.0
    sample_rate: int = SAMPLE_RATE
    format: str = "flac"
    val: float = SplitConfig().val
    test: float = SplitConfig().test
    generator: str = __version__
    what: str = "works"


def synthesise_works(
    out: StrPath, works: int, versions: int, plan: WorkPlan, jobs: int = 1, tick: Tick = untold
) -> Made:
    """Write the first `versions` versions of the first `works` works of a plan to the folder `out`, `jobs` at
    a time.

    Clips that are complete already are kept, so a stopped run goes on and a larger set reuses a smaller one.
    Raises DataError when `out` holds a set of another plan or other files.
    """
    out = as_path(out)
    claim(out, asdict(plan), {})
    return make_set(out, partial(_ensure, out, plan), _clips(works, versions, plan), COLUMNS, jobs, tick)


def _clips(works: int, versions: int, plan: WorkPlan) -> Iterator[tuple[int, int, str]]:
    """(work, version, split) of every clip."""
    for work, split in in_splits(works, plan.val, plan.test):
        for version in range(versions):
            yield work, version, split


def _ensure(out: Path, plan: WorkPlan, clip: tuple[int, int, str]) -> tuple[dict[str, str], bool]:
    """The manifest row of a clip, and whether it had to be made."""
    work, version, split = clip
    audio, beats, notes = clip_files(out, f"{work:06d}-{version}", plan.format)
    about = complete(audio, beats, notes)
    fresh = about is None
    if about is None:
        made = render_version(
            (plan.seed << 32) + work, version, seconds=plan.seconds, sample_rate=plan.sample_rate
        )
        about = write_clip(
            made.clip,
            audio,
            beats,
            notes,
            manner=made.manner,
            key=TONICS[made.key],
            transpose=made.transpose,
            tempo_ratio=round(made.tempo_ratio, 4),
            start_s=round(made.start, 3),
        )
    label = f"work-{about['seed']}"  # its own in every set, so that sets can be joined
    row = {
        "id": f"{label}-{version}",
        "file": f"audio/{audio.name}",
        "class": class_of(about["meters"]),
        "group": label,
        "split": split,
        "source": "synthetic",
        "work": label,
        "version": str(version),
        "manner": about["manner"],
        "style": about["style"],
        "key": about["key"],
        "transpose": str(about["transpose"]),
        "tempo_ratio": f"{about['tempo_ratio']:g}",
        "start_s": f"{about['start_s']:g}",
        "tempo": f"{about['tempo']:.2f}",
        "seconds": f"{about['seconds']:g}",
        "seed": str(about["seed"]),
        "beats": f"beats/{beats.name}",
    }
    return row, fresh
