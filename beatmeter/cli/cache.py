"""beatmeter cache info | failures | verify | repair | compact | gc | export | bench"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.cache_bench import bench
from beatmeter.cli.options import TERMINAL
from beatmeter.errors import StoreError, shown
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.store import Store
    from beatmeter.store.export import Format
    from beatmeter.store.place import Place

_path = click.argument("path", default="cache")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


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


cache.add_command(bench)


@cache.command()
@_path
@click.option(
    "--status",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Show watchers too that were started with this --status.",
)
@_json
def info(path: str, status: Path | None, as_json: bool) -> None:
    """Which features there are, of how many tracks, and how large; and who watches a folder for them.

    Exit status: 0 all stores can be opened, 1 some cannot (they are named).

    \b
    beatmeter cache info
    beatmeter cache info s3://BUCKET/caches --status /var/lib/beatmeter
    """
    from beatmeter.store import Store

    described: list[dict[str, Any]] = []
    for place in _places(path):
        try:
            described.append(_describe(Store.open(place), status))
        except StoreError as error:
            described.append({"path": place.where, "error": str(error)})
    if as_json:
        click.echo(to_json(described))
    else:
        for one in described:
            _print_description(one)
    sys.exit(1 if any("error" in one for one in described) else 0)


@cache.command()
@_path
@click.option(
    "--clear", is_flag=True, help="Forget them, so that the next extraction tries these files again."
)
@_json
def failures(path: str, clear: bool, as_json: bool) -> None:
    """Files that could not be used, with the reason.

    Exit status: 0 there are none (or they were cleared), 1 there are some.

    \b
    beatmeter cache failures cache/STORE
    """
    listed: list[dict[str, str]] = []
    for store in _stores(path):
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
        _table(
            ("when", "file", "reason"), [(f["time"], shown(f["path"]), shown(f["reason"])) for f in listed]
        )
        click.echo(f"{count(len(listed), 'file')} {'are forgotten' if clear else 'could not be used'}")
    sys.exit(1 if listed and not clear else 0)


@cache.command()
@_path
@click.option(
    "--full",
    is_flag=True,
    help="Read every byte and compare every checksum; otherwise the features themselves are not read.",
)
@_json
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

    reports = [verify_store(place, full, TERMINAL) for place in _places(path)]
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


@cache.command()
@_path
@_json
def repair(path: str, as_json: bool) -> None:
    """Keep every track whose bytes match their checksums, and name those that are gone. Reads everything.

    Nothing is deleted: `gc` does that later. Exit status: 0 nothing was lost, 1 some tracks are to be
    extracted again.

    \b
    beatmeter cache repair cache/STORE
    """
    from beatmeter.store.repair import repair as repair_store

    done = {}
    for place in _places(path):
        done[place.where] = repair_store(place, TERMINAL)
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


@cache.command()
@_path
@click.option(
    "--segment",
    "size",
    default="1G",
    show_default=True,
    callback=lambda *a: _bytes(a[2]),
    help="Bytes of a segment to aim at; K, M, G.",
)
@_json
def compact(path: str, size: int, as_json: bool) -> None:
    """Join small segments into large ones: stores with thousands of commits open and scan faster.

    Others may read and write meanwhile. The old segments stay until `gc` removes them.

    \b
    beatmeter cache compact cache/STORE
    """
    from beatmeter.store.compact import compact as compact_store

    done = {}
    for store in _stores(path):
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


@cache.command()
@_path
@click.option(
    "--older-than",
    default="24h",
    show_default=True,
    callback=lambda *a: _seconds(a[2]),
    help="Grace period: s, m, h or d.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@_json
def gc(path: str, older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove what dead writers, compaction and repair left behind.

    The grace period must be longer than a commit takes and than readers keep a snapshot, for instance a
    training run. A writer or a reader that is slower ends with an error that says so; what was committed
    stays.

    \b
    beatmeter cache gc --dry-run
    """
    from beatmeter.store.gc import collect

    found = {store.where: collect(store, older_than, dry_run) for store in _stores(path)}
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
            _table(("bytes", "file", "why"), [(_size(g.bytes), shown(g.file), g.why) for g in garbage])
            click.echo(f"{name}: {_size(sum(g.bytes for g in garbage))} {'would go' if dry_run else 'gone'}")


@cache.command()
@_path
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

    stores = list(_stores(path))
    if len(stores) != 1:
        raise StoreError(
            f"{shown(path)} holds {len(stores)} stores",
            f"Choose one: {', '.join(shown(s.where) for s in stores)}.",
        )
    snapshot = stores[0].snapshot()
    written = export_snapshot(snapshot, out, kind, poolings or None, overwrite, TERMINAL)
    click.echo(f"{shown(out)}: {count(len(snapshot), 'track')}, {_size(written)}, snapshot {snapshot.id}")


def _places(path: str) -> list[Place]:
    from beatmeter.store import stores_in

    places = stores_in(path)
    if not places and "://" not in path and not Path(path).exists():
        raise StoreError(
            f"there is no folder {shown(path)}",
            "Name a feature store or a folder of stores; `beatmeter extract DATASET` makes one.",
        )
    if not places:
        raise StoreError(
            f"there is no feature store in {shown(path)}", "`beatmeter extract DATASET` makes one."
        )
    return places


def _stores(path: str) -> Iterable[Store]:
    """All of them, or the error of the first of which it cannot be known what is in it."""
    from beatmeter.store import Store

    stores = [Store.open(place) for place in _places(path)]
    for store in stores:
        store.keys()
    return stores


def _describe(store: Store, status: Path | None) -> dict[str, Any]:
    snapshot, spec = store.snapshot(), store.spec
    commits = store.catalog.state().commits
    return {
        "path": store.where,
        "backbone": spec.backbone,
        "revision": spec.revision,
        "fingerprint": spec.fingerprint,
        "snapshot": snapshot.id,
        "tracks": len(snapshot),
        "seconds": float(snapshot.lengths().sum() / spec.chunk.sample_rate),
        "commits": len(commits),
        "bytes": store.place.bytes_below("segments"),
        "damaged_commits": len(store.catalog.faults()),
        "failures": len(store.failures()),
        "watchers": _watchers(store.place, status),
        "compute_dtype": spec.compute_dtype,
        "store_dtype": spec.store_dtype,
        "poolings": [
            {
                "name": p.name,
                "kind": p.kind,
                "unit": p.unit,
                "layers": list(p.layers),
                "axes": ["layer", *p.axes],
                "row_shape": list(p.row_shape),
                "rows": int(snapshot.row_counts(None, p.name).sum()),
            }
            for p in spec.poolings
        ],
    }


def _watchers(place: Place, status: Path | None) -> list[dict[str, Any]]:
    """What `extract --watch` says of itself, of those that fill this store: in its cache, and in the folder
    `status`."""
    from beatmeter.features.watch.status import FOLDER, read_in
    from beatmeter.store.folder import Folder

    folders = {status.resolve()} if status else set()
    if isinstance(place, Folder):
        folders.add((place.root.absolute().parent / FOLDER).resolve())
    found = [s for folder in sorted(folders) for s in read_in(folder)]
    here = [
        s
        for s in found
        if (
            Path(s.store).resolve() == place.root.resolve()
            if isinstance(place, Folder)
            else s.store == place.where
        )
    ]
    return [{**asdict(s), "running": s.alive(), "text": s.line()} for s in here]


def _print_description(one: Mapping[str, Any]) -> None:
    if "error" in one:
        click.secho(f"{one['path']}\n  cannot be opened: {one['error']}", fg="red")
        return
    click.echo(one["path"])
    lines = [
        (
            "backbone",
            (
                f"{one['backbone']} ({one['revision']}), computed in {one['compute_dtype']}, stored in "
                f"{one['store_dtype']}"
            ),
        ),
        ("fingerprint", one["fingerprint"]),
        ("snapshot", one["snapshot"]),
        (
            "tracks",
            (
                f"{one['tracks']} ({one['seconds'] / 3600:.1f} h of audio) in {one['commits']} commits, "
                f"{_size(one['bytes'])} on disk"
            ),
        ),
    ]
    lines += [
        (
            p["name"],
            (
                f"{p['rows']} rows, one per {p['unit']}, of "
                f"({', '.join(f'{a} {n}' for a, n in zip(p['axes'], p['row_shape'], strict=True))})"
            ),
        )
        for p in one["poolings"]
    ]
    if one["failures"]:
        lines.append(
            ("failures", f"{one['failures']} files could not be used; `beatmeter cache failures` lists them")
        )
    if one["damaged_commits"]:
        lines.append(
            (
                "DAMAGED",
                f"{one['damaged_commits']} commits cannot be used; `beatmeter cache verify` tells more",
            )
        )
    lines += [("watcher", w["text"]) for w in one["watchers"]]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        click.echo(f"  {name:<{width}}  {text}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header) - 1)]
        for row in (header, *rows):
            click.echo(
                "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])
            )


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _bytes(text: str) -> int:
    return int(_scaled(text, {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}))


def _seconds(text: str) -> float:
    return _scaled(text, {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400})


def _scaled(text: str, units: Mapping[str, int]) -> float:
    number, unit = (text[:-1], text[-1]) if text and not text[-1].isdigit() else (text, "")
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise click.BadParameter(
            f"{text!r} is not a number with one of the units {', '.join(u for u in units if u)}"
        )
    return float(number) * units[unit]
