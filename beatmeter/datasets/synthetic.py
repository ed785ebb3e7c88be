"""A synthetic data set on disk: clips of every class with the exact grid they were made on, split and ready
to train on.

    OUT/manifest.csv             one row a clip, as `beatmeter.datasets.manifest` reads it
    OUT/audio/000017.flac        24 kHz mono, 16 bit
    OUT/beats/000017.beats       felt beats: seconds, tab, number in the bar (1 is the downbeat)
    OUT/annotations/000017.json  all else that is known: meters, grouping, downbeats, sections, style, seed
    OUT/synthetic.json           the settings that made it

Clip i of a seed is always the same clip with the same split, whatever the number of clips: a set can be made
longer.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from beatmeter import __version__
from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.audio.encode import encode
from beatmeter.datasets.groupings import grouping_of, kind_of
from beatmeter.datasets.synth import Clip, render, render_slice
from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synth.slices import SLICE_MIXES, draw_seconds, draw_slice
from beatmeter.errors import DataError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_json, write_json
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.runtime.progress import Tick, untold
from beatmeter.settings import SplitConfig

COLUMNS = (
    "id",
    "file",
    "class",
    "group",
    "split",
    "source",
    "kind",
    "style",
    "grouping",
    "tempo",
    "seconds",
    "seed",
    "beats",
)
SLICED = (*COLUMNS, "slice", "bar", "rubato", "subdivision")  # of the mixes that have slices
_SETTINGS = "synthetic.json"
T = TypeVar("T")
MIXES: dict[str, dict[int, float]] = {  # share of each class
    "even": {meter: 1 / len(METERS) for meter in METERS},
    **{mix: {meter: 1 / len(METERS) for meter in METERS} for mix in SLICE_MIXES},  # some of them short
    "music": {4: 0.6, 3: 0.22, 7: 0.06, 5: 0.05, 9: 0.04, 11: 0.03},  # as in collections: few bars are odd
}


@dataclass(frozen=True)
class SynthPlan:
    """What decides every clip of a set. `format` is flac or wav; `val` and `test` are shares of each class;
    `mix` is one of MIXES."""

    seed: int = 0
    seconds: float = 30.0
    sample_rate: int = SAMPLE_RATE
    format: str = "flac"
    val: float = SplitConfig().val
    test: float = SplitConfig().test
    generator: str = __version__
    mix: str = "even"


@dataclass(frozen=True)
class Made:
    """What `synthesise` did: clips made now, and clips that were there already."""

    manifest: Path
    made: int
    kept: int


def synthesise(out: StrPath, clips: int, plan: SynthPlan, jobs: int = 1, tick: Tick = untold) -> Made:
    """Write the first `clips` clips of a plan to the folder `out`, the classes in turn as the plan mixes
    them, `jobs` at a time.

    Clips that are complete already are kept, so a stopped run goes on and a longer set reuses a shorter one.
    Raises DataError when `out` holds a set of another plan or other files.
    """
    out = as_path(out)
    claim(out, asdict(plan), {"mix": SynthPlan.mix})  # sets of earlier versions do not say it
    columns = SLICED if plan.mix in SLICE_MIXES else COLUMNS
    return make_set(out, partial(_ensure, out, plan), _schedule(clips, plan), columns, jobs, tick)


def make_set(
    out: Path,
    ensure: Callable[[T], tuple[dict[str, str], bool]],
    items: Iterable[T],
    columns: Sequence[str],
    jobs: int,
    tick: Tick,
) -> Made:
    """Make every item that is not there yet, `jobs` at a time, and the manifest of all. `ensure` gives the
    row of an item, and whether it had to be made."""
    rows: list[dict[str, str]] = []
    made = 0
    for outcome in ordered(ensure, items, jobs):
        if isinstance(outcome, Crash):
            raise DataError(
                f"a process died while it made item {len(rows)}",
                "Run again: what is complete is kept. Is there enough memory?",
            )
        row, fresh = outcome
        rows.append(row)
        made += fresh
        tick(1)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(out / "manifest.csv", text.getvalue())
    return Made(out / "manifest.csv", made, len(rows) - made)


def claim(out: Path, plan: Mapping[str, Any], unsaid: Mapping[str, Any]) -> None:
    """Make `out` the folder of this plan, or make sure that it is; `unsaid` stands for what its settings do
    not say. Raises DataError for a folder of other files or of another plan."""
    settings = out / _SETTINGS
    if not settings.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(
                f"{shown(out)} is not an empty folder", "Name a new folder for the synthetic set."
            )
        write_json(settings, dict(plan))
        return
    settled = {**unsaid, **read_json(settings, DataError, "Name a new folder for the synthetic set.")}
    differs = [
        f"{name} {settled.get(name)!r}, not {value!r}"
        for name, value in plan.items()
        if settled.get(name) != value
    ]
    if differs:
        raise DataError(
            f"{shown(out)} holds a synthetic set of other settings: {', '.join(differs)}",
            "Name another folder, or use these settings.",
        )


def _schedule(clips: int, plan: SynthPlan) -> Iterator[tuple[int, int, str]]:
    """(index, class, split) of every clip: the class that lags most behind its share of the mix; in it, the
    split that does."""
    shares = {"train": 1 - plan.val - plan.test, "val": plan.val, "test": plan.test}
    counts = {meter: dict.fromkeys(shares, 0) for meter in METERS}
    mix = MIXES[plan.mix]
    for index in range(clips):
        meter = max(METERS, key=lambda m: round(mix[m] * (index + 1) - sum(counts[m].values()), 9))
        so_far = counts[meter]
        split = max(shares, key=lambda name: shares[name] * (sum(so_far.values()) + 1) - so_far[name])
        so_far[split] += 1
        yield index, meter, split


def in_splits(n: int, val: float, test: float) -> Iterator[tuple[int, str]]:
    """(index, split) of `n` things: the split that lags most behind its share."""
    shares = {"train": 1 - val - test, "val": val, "test": test}
    counts = dict.fromkeys(shares, 0)
    for index in range(n):
        split = max(shares, key=lambda name: round(shares[name] * (index + 1) - counts[name], 9))
        counts[split] += 1
        yield index, split


def clip_files(out: Path, name: str, format: str) -> tuple[Path, Path, Path]:
    """Where a clip's audio, beats and annotation lie."""
    return (
        out / "audio" / f"{name}.{format}",
        out / "beats" / f"{name}.beats",
        out / "annotations" / f"{name}.json",
    )


def _ensure(out: Path, plan: SynthPlan, clip_of: tuple[int, int, str]) -> tuple[dict[str, str], bool]:
    """The manifest row of a clip of the schedule, and whether it had to be made."""
    index, meter, split = clip_of
    audio, beats, notes = clip_files(out, f"{index:06d}", plan.format)
    about = complete(audio, beats, notes)
    fresh = about is None
    if about is None:
        clip = _render((plan.seed << 32) + index, meter, plan)
        about = write_clip(clip, audio, beats, notes, plan.mix)
    row = {
        "id": f"synthetic-{about['seed']}",  # its own in every set, so that sets can be joined
        "file": f"audio/{audio.name}",
        "class": class_of(about["meters"]),
        "group": f"synthetic-{about['seed']}",
        "split": split,
        "source": "synthetic",
        "kind": about["kind"],
        "style": about["style"],
        "grouping": "+".join(map(str, about["grouping"])),
        "tempo": f"{about['tempo']:.2f}",
        "seconds": f"{about['seconds']:g}",
        "seed": str(about["seed"]),
        "beats": f"beats/{beats.name}",
    }
    if plan.mix in SLICE_MIXES:
        grouping = grouping_of(about["primary"], about["grouping"])
        row |= {
            "source": f"synthetic {about['slice']}",  # so that evaluation has a line for each
            "slice": about["slice"],
            "bar": f"{bar_seconds(about['grouping'], about['tempo']):.3f}",
            "rubato": f"{about['rubato']:g}",
            "subdivision": "" if grouping is None else kind_of(grouping),
        }
    return row, fresh


def bar_seconds(grouping: Sequence[int], tempo: float) -> float:
    """The mean length of a bar of so many pulses, `tempo` of them a minute."""
    return 60 * sum(grouping) / tempo


def _render(seed: int, meter: int, plan: SynthPlan) -> Clip:
    if plan.mix not in SLICE_MIXES:
        return render(seed, meter=meter, seconds=plan.seconds, sample_rate=plan.sample_rate)
    seconds = draw_seconds(seed, plan.seconds)
    name = draw_slice(seed, plan.mix)
    return render_slice(seed, name, meter=meter, seconds=seconds, sample_rate=plan.sample_rate)


def write_clip(
    clip: Clip, audio: Path, beats: Path, notes: Path, mix: str = SynthPlan.mix, **more: Any
) -> dict[str, Any]:
    """Write a clip's three files; what `notes` holds, `more` included."""
    content = encode(clip.audio, clip.sample_rate, audio.suffix[1:].upper(), "PCM_16")
    atomic.write_bytes(audio, content)
    lines = zip(clip.beats, clip.beat_numbers, strict=True)
    atomic.write_text(beats, "".join(f"{time:.6f}\t{number}\n" for time, number in lines))
    about = {**_annotation(clip, len(content), mix), **more}
    write_json(notes, about)  # last: where it is, the clip is complete
    return about


def complete(audio: Path, beats: Path, notes: Path) -> dict[str, Any] | None:
    """The annotation of a clip whose files are all there in full, else None."""
    try:
        about = read_json(notes, DataError)
        return about if audio.stat().st_size == about["bytes"] and beats.exists() else None
    except (OSError, DataError, KeyError):
        return None


def class_of(meters: Mapping[str, float]) -> str:
    """Meters and their weights as a cell of a manifest."""
    if len(meters) == 1:
        return next(iter(meters))
    return ",".join(f"{name}:{weight:g}" for name, weight in meters.items())


def _annotation(clip: Clip, size: int, mix: str) -> dict[str, Any]:
    """What is known of a clip as JSON; times in seconds, to the microsecond. The heaviest meter comes
    first."""
    meters = sorted(clip.meters.items(), key=lambda item: (-item[1], item[0] != clip.primary))
    return {
        "meters": {str(meter): round(weight, 4) for meter, weight in meters},
        "primary": str(clip.primary),
        "grouping": list(clip.grouping),
        "tempo": round(clip.tempo, 4),
        "kind": clip.kind,
        "style": clip.style,
        **({} if mix not in SLICE_MIXES else {"slice": clip.slice, "rubato": clip.rubato}),
        "seed": clip.seed,
        "seconds": round(len(clip.audio) / clip.sample_rate, 6),
        "downbeats": clip.downbeats.round(6).tolist(),
        "second_downbeats": clip.second_downbeats.round(6).tolist(),
        "sections": [[round(start, 6), round(end, 6), label] for start, end, label in clip.sections],
        "bytes": size,
    }
