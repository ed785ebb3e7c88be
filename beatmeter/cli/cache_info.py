"""beatmeter cache info: which features there are, and who fills the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.cache_stores import backends_at, json_option, path_argument, size
from beatmeter.errors import StoreError
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.store import Store
    from beatmeter.store.backend import Backend


@click.command(short_help="which features there are, of how many tracks, how large")
@path_argument
@click.option(
    "--status",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Show watchers too that were started with this --status.",
)
@json_option
def info(path: str, status: Path | None, as_json: bool) -> None:
    """Which features there are, of how many tracks, and how large; and who watches a folder for them.

    Exit status: 0 all stores can be opened, 1 some cannot (they are named).

    \b
    beatmeter cache info
    beatmeter cache info s3://BUCKET/caches --status /var/lib/beatmeter
    """
    from beatmeter.store import Store

    described: list[dict[str, Any]] = []
    for backend in backends_at(path):
        try:
            described.append(_describe(Store.open(backend), status))
        except StoreError as error:
            described.append({"path": backend.where, "error": str(error)})
    if as_json:
        click.echo(to_json(described))
    else:
        for one in described:
            _print_description(one)
    sys.exit(1 if any("error" in one for one in described) else 0)


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
        "bytes": store.backend.bytes_below("segments"),
        "damaged_commits": len(store.catalog.faults()),
        "failures": len(store.failures()),
        "watchers": _watchers(store.backend, status),
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


def _watchers(backend: Backend, status: Path | None) -> list[dict[str, Any]]:
    """What `extract --watch` says of itself, of those that fill this store: in its cache, and in the folder
    `status`."""
    from beatmeter.features.watch.status import FOLDER, read_in
    from beatmeter.store.folder import Folder

    folders = {status.resolve()} if status else set()
    if isinstance(backend, Folder):
        folders.add((backend.root.absolute().parent / FOLDER).resolve())
    found = [s for folder in sorted(folders) for s in read_in(folder)]
    here = [
        s
        for s in found
        if (
            Path(s.store).resolve() == backend.root.resolve()
            if isinstance(backend, Folder)
            else s.store == backend.where
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
                f"{one['tracks']} ({one['seconds'] / 3600:.1f} h of audio) in "
                f"{count(one['commits'], 'commit')}, {size(one['bytes'])} on disk"
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
