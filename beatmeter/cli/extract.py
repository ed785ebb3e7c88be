"""beatmeter extract"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import TERMINAL, configure, device_option, echo, settings_options
from beatmeter.errors import ConfigError, DataError, shown
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.features.extraction import Shard
    from beatmeter.features.service import FeatureService


@click.command()
@click.argument("dataset", type=click.Path())
@settings_options
@click.option("--layers", help="Layers to keep, for instance 1-6 or 3,5,7; the encoder stops after the last.")
@click.option("--cache", "cache_dir", type=click.Path(), help="Folder of feature stores.  [default: cache]")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that decode audio.  [default: 1, which is this one; 2 with --watch]",
)
@click.option("--retry-failed", is_flag=True, help="Try files again that failed in an earlier run.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many tracks.")
@click.option(
    "--shard", metavar="I/N", help="Only part I of N of the tracks: N runs, on any machines, fill one store."
)
@click.option(
    "--watch",
    is_flag=True,
    help="Keep running: extract what is in the folder DATASET and what arrives there.",
)
@click.option(
    "--settle",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds without change until a file is complete.",
)
@click.option(
    "--interval",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds between two looks at the folder.",
)
@click.option(
    "--status",
    type=click.Path(path_type=Path),
    help="Folder for status and logs of --watch.  [default: watch in the cache]",
)
@click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="NAME",
    help="Who works: local (this machine), dask or ray.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes to start here.  [default: 1; of dask and ray one per 4 cores]",
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask or Ray cluster that is there already.")
@device_option
def extract(
    dataset: str,
    recipe: tuple[str, ...],
    assignments: tuple[str, ...],
    layers: str | None,
    cache_dir: str | None,
    jobs: int | None,
    retry_failed: bool,
    limit: int | None,
    shard: str | None,
    watch: bool,
    settle: float,
    interval: float,
    status: Path | None,
    engine: str,
    workers: int | None,
    scheduler: str | None,
    device: str,
) -> None:
    """Write the features of every track of DATASET to the store. Safe to stop and run again: only what is
    missing is done.

    \b
    beatmeter extract MUSIC/ --recipe spectral-lag
    beatmeter extract METER2800/ --set features.backbone=m-a-p/MERT-v1-95M --layers 1-6
    beatmeter extract MUSIC/ --engine dask --scheduler tcp://10.0.0.1:8786
    beatmeter extract --watch INBOX/ --cache /data/features
    beatmeter extract MUSIC/ --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT

    Exit status: 0 everything is in the store, 1 some files failed (they are listed), 2 nothing could be done,
    130 Ctrl-C and 143 SIGTERM, which keep what is finished. With --watch, after SIGTERM or Ctrl-C: 0 what was
    in flight is committed, 1 it could not be and will be extracted again.
    """
    config = configure(
        recipe,
        assignments,
        features={k: v for k, v in {"layers": layers, "cache": cache_dir}.items() if v},
        data={"path": dataset},
    )
    from beatmeter.datasets import open_dataset
    from beatmeter.features.engines import open_engine, spread
    from beatmeter.features.extraction import Shard
    from beatmeter.features.service import FeatureService, why_begun
    from beatmeter.runtime.device import choose_device

    part = Shard.parse(shard) if shard else Shard()
    service = FeatureService(config.features, choose_device(device), jobs or (2 if watch else 1))
    if watch:
        if limit or engine != "local" or workers or scheduler:
            raise ConfigError(
                "--watch goes with none of --limit, --engine, --workers, --scheduler",
                "To watch on several machines give each a --shard.",
            )
        raise SystemExit(_watch(service, Path(dataset), part, status, settle, interval, retry_failed))
    opened = open_dataset(Path(dataset), config.data, config.task.meters, labelled=False)
    tracks = part.of(opened.tracks[:limit])
    if shard:
        echo(f"shard {part}: {len(tracks)} of {len(opened.tracks[:limit])} tracks")
    if opened.excluded:
        echo(
            f"{len(opened.excluded)} rows of {dataset} have no usable file; `beatmeter data check {dataset}` "
            "lists them"
        )
    echo(service.describe())
    if engine == "local" and not scheduler and (workers or 1) == 1:
        store, _, failed = service.ensure(tracks, report=echo, progress=TERMINAL, retry_failed=retry_failed)
    else:
        for line in why_begun(service.store()):
            echo(line)
        with open_engine(engine, workers or 0, scheduler) as started:
            outcome = spread(service, tracks, started, device, TERMINAL, retry_failed)
        store, failed = outcome.store, outcome.failed
        for line in outcome.lines():
            echo(line)
    for name, reason in sorted(failed.items()):
        click.echo(f"failed: {name}: {reason}")
    click.echo(f"{store.where}: {len(tracks) - len(failed)} of {count(len(tracks), 'track')} have features")
    raise SystemExit(1 if failed or opened.excluded else 0)


def _watch(
    service: FeatureService,
    folder: Path,
    part: Shard,
    where: Path | None,
    settle: float,
    interval: float,
    retry_failed: bool,
) -> int:
    from beatmeter.features.watch.arrivals import Arrivals
    from beatmeter.features.watch.log import LOG, logging_to
    from beatmeter.features.watch.status import FOLDER, Status, StatusFile
    from beatmeter.features.watch.watcher import Watcher
    from beatmeter.store.store import is_address

    if not folder.is_dir():
        what = f"{shown(folder)} is no folder" if folder.exists() else f"there is no folder {shown(folder)}"
        raise DataError(what, "--watch watches a folder of audio files.")
    if where is None:
        if is_address(service.config.cache):
            raise ConfigError(
                f"the cache {service.config.cache} is no folder",
                "Give a folder for status and logs with --status.",
            )
        where = Path(service.config.cache) / FOLDER
    if service.memory is None:
        service.memory = where
    store = service.store()
    file = StatusFile(
        where,
        Status(
            str(folder.absolute()),
            store.where if is_address(store.where) else str(store.path.absolute()),
            str(part),
        ),
    )
    with file.held(), logging_to(file.path.with_suffix(".log")):
        LOG.info("%s", service.describe())
        file.write()
        with _stopped_by_signals() as stop:
            watcher = Watcher(
                service, store, Arrivals(folder, settle, part), file, stop, interval, retry_failed
            )
            return watcher.run(
                lambda: click.echo(
                    f"ready: watching {shown(folder)}, store {store.where}, status {shown(file.path)}"
                )
            )


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set. A second one ends the process at once; the store does not
    mind."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        for again in before:
            signal.signal(again, signal.SIG_DFL)
        threading.Thread(target=stop.set).start()  # not here: this thread may be inside the event

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
