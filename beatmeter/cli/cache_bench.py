"""beatmeter cache bench"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.options import echo
from beatmeter.errors import StoreError, shown
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.store import Store
    from beatmeter.store.timing import Timing
    from beatmeter.store.ways import Sample, Way

COPIES = 3  # of the sample that lie on disk at the same time, at most
BATCHES = 4  # in each round


@click.command(short_help="how fast the cache and this disk are")
@click.argument("path", required=False)
@click.option("--cache", "folder", help="The same as PATH.")
@click.option("--pooling", help="Features to read.  [default: the first that the store has]")
@click.option(
    "--size", default=256, show_default=True, type=click.IntRange(1), help="MB of features to read."
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often everything is timed."
)
@click.option(
    "--rivals",
    is_flag=True,
    help="The same tracks in a memory map, HDF5, zarr-python, one .npy each, and LMDB if installed, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def bench(
    path: str | None,
    folder: str | None,
    pooling: str | None,
    size: int,
    rounds: int,
    rivals: bool,
    as_json: bool,
) -> None:
    """How fast is the cache, on this disk and in this store, next to plain reads of the same numbers?

    PATH is a store or a folder of stores, of which the largest is read; the default is ./cache. In a folder
    without any, features are made up, to measure the disk that it is on. The same tracks are then written
    beside it as a fresh store and as one plain file, and all are read in turn, next to copies from memory to
    memory (warm) and preads of the plain file (cold); with --rivals also as people usually keep such
    numbers. Nothing in the store is changed; what was written goes away at the end, also after Ctrl-C.

    \b
    beatmeter cache bench
    beatmeter cache bench --rivals
    beatmeter cache bench cache/mert-v1-95m-0123456789abcdef --size 1000 --json
    """
    given = folder or path
    place = Path(given or "cache")
    if "://" in (given or ""):
        raise StoreError(
            f"{shown(place)} is no folder",
            "Only stores in a file system can be measured: object stores have no memory of their own.",
        )
    if given and not place.is_dir():
        raise StoreError(
            f"there is no folder {shown(place)}",
            "Give a store, a folder of stores, or any folder of a disk that is to be measured.",
        )
    store, sample = _sample(place, pooling, size)
    beside = _beside(place if store is None else store.path.parent)
    others = _rivals() if rivals else {}
    free, need = shutil.disk_usage(beside).free, (COPIES + len(others)) * sample.values.nbytes
    if free < need:
        raise StoreError(
            f"{need / 1e6:.0f} MB are needed in {shown(beside)} for a while, {free / 1e6:.0f} MB are free",
            "Choose a smaller --size.",
        )
    what = (
        f"{sample.pooling}: {count(len(sample), 'track')}, {len(sample.values)} rows of "
        f"{sample.values.shape[1:]},"
    )
    what += f" {sample.values.nbytes / 1e6:.0f} MB"
    echo(f"{shown(store.where) if store else 'made-up features'}: {what}")
    found = []
    for timing in _measured(store, sample, beside, rounds, others):
        found.append(timing)
        if not as_json:
            click.echo(_text(timing))
    if as_json:
        about = {
            "store": store.where if store else None,
            "folder": str(beside),
            "pooling": sample.pooling,
            "tracks": len(sample),
        }
        click.echo(
            to_json(
                {**about, "bytes": sample.values.nbytes, "patterns": [_plain(timing) for timing in found]}
            )
        )


def _sample(place: Path, pooling: str | None, size: int) -> tuple[Store | None, Sample]:
    """The largest store in a folder, if there is one, and about `size` MB of its tracks; or made-up ones."""
    from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
    from beatmeter.store import list_stores
    from beatmeter.store.backend import UnreadableError
    from beatmeter.store.ways import Sample

    found = list(list_stores(place))
    broken = [one for one in found if isinstance(one, StoreError)]
    stores = [one for one in found if not isinstance(one, StoreError) and len(one.keys())]
    unreadable = [error for error in broken if isinstance(error, UnreadableError)]  # it may be the largest
    if unreadable or (broken and not stores):
        raise (*unreadable, *broken)[0]
    for error in broken:
        echo(f"left out: {error}")
    if stores:
        store = max(stores, key=lambda s: s.backend.bytes_below("segments"))
        return store, Sample.of(store.snapshot(), pooling or store.spec.poolings[0].name, size * 1_000_000)
    layers = tuple(range(1, 25))
    stats = PoolingSpec(
        "stats", "stats", "chunk", layers, ("pool", "dim"), (2, 1024), {"statistics": ["mean", "max"]}
    )
    spec = FeatureSpec(
        "noise in the shape of a 330M model", "", "", 24, 1024, 320, 400, True, ChunkSpec(), (stats,)
    )
    return None, Sample.made(
        spec.only([pooling or "stats"]), max(1, round(size / 0.6))
    )  # a track has six rows of 98 kB


def _beside(place: Path) -> Path:
    """The nearest folder that exists."""
    return next(p for p in (place.absolute(), *place.absolute().parents) if p.is_dir())


def _rivals() -> dict[str, type[Way]]:
    """Other ways to keep the same numbers; those whose package is not installed are named."""
    from beatmeter.store.rivals import NEEDS, RIVALS, installed

    found = installed()
    for name in RIVALS.keys() - found.keys():
        echo(f"left out: {name}, which is not installed (pip install {NEEDS[name]})")
    return found


def _measured(
    store: Store | None, sample: Sample, beside: Path, rounds: int, rivals: Mapping[str, type[Way]]
) -> Iterator[Timing]:
    from beatmeter.store import timing
    from beatmeter.store.backend import explained
    from beatmeter.store.ways import FreshStore, Memcpy, OwnStore, Pread

    with explained("measuring", beside), timing.stoppable(), _workplace(beside) as folder:
        yield timing.writing(
            {"store": FreshStore, "one file": Pread, **rivals}, "one file", sample, folder, min(rounds, 3)
        )
        stores: dict[str, Way] = {"store": FreshStore(folder / "kept" / "store", sample)}
        if store:
            stores["this store"] = OwnStore(store.path, sample)
        stores |= {name: kind(folder / "kept" / kind.__name__, sample) for name, kind in rivals.items()}
        yield from timing.warm(
            {"memcpy": Memcpy(folder / "kept" / "none", sample), **stores}, "memcpy", rounds, BATCHES
        )
        yield from timing.cold({"pread": Pread(folder / "kept" / "file", sample), **stores}, "pread", rounds)


@contextmanager
def _workplace(beside: Path) -> Iterator[Path]:
    """A folder that is gone afterwards. After Ctrl-C a library's thread may still be writing there for a
    moment."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=beside))
    try:
        yield folder
    finally:
        until = time.monotonic() + 10
        while folder.exists() and time.monotonic() < until:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.02)


def _plain(timing: Timing) -> dict[str, Any]:
    ways: Mapping[str, Any] = {
        name: {
            "seconds": list(seconds),
            "GB/s": timing.bytes / statistics.median(seconds) / 1e9,
            f"x {timing.base}": timing.ratio(name),
        }
        for name, seconds in timing.seconds.items()
    }
    return {"pattern": timing.pattern, "bytes": timing.bytes, "ways": ways}


def _text(timing: Timing) -> str:
    """A table: median and spread in milliseconds, GB/s, speed relative to the baseline."""
    import numpy as np

    lines = [
        f"\n{timing.pattern} ({timing.bytes / 1e6:.0f} MB)",
        f"  {'':18}{'ms':>10}{'p10 - p90':>20}{'GB/s':>8}{'x ' + timing.base:>12}",
    ]
    for name, seconds in timing.seconds.items():
        low, high = np.percentile(seconds, [10, 90]) * 1e3
        middle = statistics.median(seconds)
        rate = timing.bytes / middle / 1e9
        spread = f"{low:.2f} - {high:.2f}"
        lines.append(f"  {name:18}{middle * 1e3:10.2f}{spread:>20}{rate:8.2f}{timing.ratio(name):12.2f}")
    return "\n".join(lines)
