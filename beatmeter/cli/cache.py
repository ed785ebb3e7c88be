"""beatmeter cache info | failures | verify | repair | compact | gc | export | bench"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.cache_bench import bench
from beatmeter.cli.cache_info import info
from beatmeter.cli.cache_stores import (
    backends_at,
    json_option,
    parse_bytes,
    parse_seconds,
    path_argument,
    print_table,
    size,
    stores_at,
)
from beatmeter.cli.options import TERMINAL
from beatmeter.errors import StoreError, shown
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.store.export import Format


@click.group()
def cache() -> None:
    """Look into feature stores, check them, mend them, hand them on.

    PATH is one store or a folder of stores, on a disk or at an address (s3://BUCKET/caches); the default is
    ./cache.

    \b
    beatmeter cache info
    beatmeter cache verify --full
    beatmeter cache export cache/mert-v1-95m-0123456789abcdef --out features.h5
    """


cache.add_command(info)
cache.add_command(bench)


@cache.command(short_help="files that could not be used, with the reason")
@path_argument
@click.option(
    "--clear", is_flag=True, help="Forget them, so that the next extraction tries these files again."
)
@json_option
def failures(path: str, clear: bool, as_json: bool) -> None:
    """Files that could not be used, with the reason.

    Exit status: 0 there are none (or they were cleared), 1 there are some.

    \b
    beatmeter cache failures cache/STORE
    """
    listed: list[dict[str, str]] = []
    for store in stores_at(path):
        found = store.failures()
        listed += [
            {"store": store.where, "key": f.key, "path": f.path, "reason": f.reason, "time": f.time}
            for f in found.values()
        ]
        if clear:
            store.clear_failures(found)
    if as_json:
        click.echo(to_json(listed))
    else:
        print_table(
            ("when", "file", "reason"), [(f["time"], shown(f["path"]), shown(f["reason"])) for f in listed]
        )
        click.echo(f"{count(len(listed), 'file')} {'are forgotten' if clear else 'could not be used'}")
    sys.exit(1 if listed and not clear else 0)


@cache.command(short_help="is every store sound? what to do where it is not")
@path_argument
@click.option(
    "--full",
    is_flag=True,
    help="Read every byte and compare every checksum; otherwise the features themselves are not read.",
)
@json_option
def verify(path: str, full: bool, as_json: bool) -> None:
    """Is every store sound? Names each fault, the file, and what to do about it. Changes nothing.

    Without --full it compares the records of all commits with what their segments say of themselves:
    metadata, lengths and indexes. A bit that changed in the features is found by --full alone.

    Exit status: 0 sound (garbage and notes do no harm), 1 features are missing or damaged, or cannot be
    checked.

    \b
    beatmeter cache verify --full
    """
    from beatmeter.store.verify import verify as verify_store

    reports = [verify_store(backend, full, TERMINAL) for backend in backends_at(path)]
    if as_json:
        text = [
            {
                "path": r.path,
                "sound": r.sound,
                "full": r.full,
                "tracks": r.tracks,
                "segments": r.segments,
                "faults": [
                    {
                        "level": f.level,
                        "file": f.file,
                        "fault": f.fault,
                        "remedy": f.remedy,
                        "tracks": list(f.tracks),
                    }
                    for f in r.faults
                ],
            }
            for r in reports
        ]
        click.echo(to_json(text))
    else:
        for report in reports:
            for fault in report.faults:
                click.echo(f"{fault.level}: {shown(fault.file)}: {shown(fault.fault)}")
                click.echo(f"    {fault.remedy}")
            depth = "every byte" if full else "records, indexes and lengths (features not read: --full)"
            held = f"{count(report.tracks, 'track')} in {count(report.segments, 'segment')}"
            click.echo(f"{report.path}: {held}, {depth}: {report.verdict}")
    sys.exit(0 if all(r.sound for r in reports) else 1)


@cache.command(short_help="keep every track whose bytes are right, name the others")
@path_argument
@json_option
def repair(path: str, as_json: bool) -> None:
    """Keep every track whose bytes match their checksums, and name those that are gone. Reads everything.

    Nothing is deleted: `gc` does that later. Exit status: 0 nothing was lost, 1 some tracks are to be
    extracted again.

    \b
    beatmeter cache repair cache/STORE
    """
    from beatmeter.store.repair import repair as repair_store

    done = {}
    for backend in backends_at(path):
        done[backend.where] = repair_store(backend, TERMINAL)
    if as_json:
        click.echo(to_json({name: {"actions": r.actions, "lost": r.lost} for name, r in done.items()}))
    else:
        for name, r in done.items():
            for line in (*r.actions, *(f"lost: track {key}" for key in r.lost)):
                click.echo(shown(line))
            click.echo(
                f"{name}: {count(len(r.actions), 'repair')}, {count(len(r.lost), 'track')} "
                f"lost{'; extract them again' if r.lost else ''}"
            )
    sys.exit(1 if any(r.lost for r in done.values()) else 0)


@cache.command(short_help="join small segments: stores open and scan faster")
@path_argument
@click.option(
    "--segment",
    "size",
    default="1G",
    show_default=True,
    callback=lambda *a: parse_bytes(a[2]),
    help="Bytes of a segment to aim at; K, M, G.",
)
@json_option
def compact(path: str, size: int, as_json: bool) -> None:
    """Join small segments into large ones: stores with thousands of commits open and scan faster.

    Others may read and write meanwhile. The old segments stay until `gc` removes them.

    \b
    beatmeter cache compact cache/STORE
    """
    from beatmeter.store.compact import compact as compact_store

    done = {}
    for store in stores_at(path):
        done[store.where] = compact_store(store, size, TERMINAL)
    if as_json:
        click.echo(
            to_json(
                {name: {"before": c.before, "after": c.after, "copied": c.copied} for name, c in done.items()}
            )
        )
    else:
        for name, c in done.items():
            click.echo(
                f"{name}: {count(c.before, 'segment')} became {c.after}, {count(c.copied, 'track')} copied"
            )


@cache.command(short_help="remove what dead writers, compaction and repair left")
@path_argument
@click.option(
    "--older-than",
    default="24h",
    show_default=True,
    callback=lambda *a: parse_seconds(a[2]),
    help="Grace period: s, m, h or d.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@json_option
def gc(path: str, older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove what dead writers, compaction and repair left behind.

    The grace period must be longer than a commit takes and than readers keep a snapshot, for instance a
    training run. A writer or a reader that is slower ends with an error that says so; what was committed
    stays.

    \b
    beatmeter cache gc --dry-run
    """
    from beatmeter.store.gc import collect

    found = {store.where: collect(store, older_than, dry_run) for store in stores_at(path)}
    if as_json:
        click.echo(
            to_json(
                {
                    name: [{"file": g.file, "bytes": g.bytes, "why": g.why} for g in garbage]
                    for name, garbage in found.items()
                }
            )
        )
    else:
        for name, garbage in found.items():
            print_table(("bytes", "file", "why"), [(size(g.bytes), shown(g.file), g.why) for g in garbage])
            click.echo(f"{name}: {size(sum(g.bytes for g in garbage))} {'would go' if dry_run else 'gone'}")


@cache.command(short_help="one store as a single file for other programs")
@path_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(["h5", "zarr"]),
    default="h5",
    show_default=True,
    help="h5: one HDF5 file. zarr: a Zarr v3 group, one whole array for each pooling.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File or folder to write.")
@click.option("--pooling", "poolings", multiple=True, help="Only this pooling; may be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def export(path: str, kind: Format, out: Path, poolings: tuple[str, ...], overwrite: bool) -> None:
    """Write one store as a single file or group for other programs.

    \b
    beatmeter cache export cache/mert-v1-95m-0123456789abcdef --out features.h5
    beatmeter cache export cache/mert-v1-95m-0123456789abcdef --format zarr --out features.zarr
    """
    from beatmeter.store.export import export as export_snapshot

    stores = list(stores_at(path))
    if len(stores) != 1:
        raise StoreError(
            f"{shown(path)} holds {len(stores)} stores",
            f"Choose one: {', '.join(shown(s.where) for s in stores)}.",
        )
    snapshot = stores[0].snapshot()
    written = export_snapshot(snapshot, out, kind, poolings or None, overwrite, TERMINAL)
    click.echo(f"{shown(out)}: {count(len(snapshot), 'track')}, {size(written)}, snapshot {snapshot.id}")
