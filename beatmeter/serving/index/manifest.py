"""The manifest of an index: what its folder holds, opened together and replaced whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.errors import DataError, RunError, shown
from beatmeter.runtime.artifacts import read_json, require, write_json
from beatmeter.serving.index.shards import REMEDY, Shard, open_array, open_shard

FORMAT = 2  # 1 had no notes
MANIFEST = "index.json"
_OURS = ("shard-*", ".shard-*", "gone-*.npy", "cells-*.npy")
_TRIES = 5  # to read a manifest whose files another process is just replacing
_SHAPE = {
    "format": int,
    "dim": int,
    "origin": [float],
    "shards": [{"name": str, "rows": int, "files": {"*": [int]}, "?gone": str, "?cells": str}],
    "?arrays": {"*": [int]},
    "?meta": dict,
    "?cells": {"centroids": str, "probes": int, "recall": float, "k": int, "rows": int},
}


def open_index(root: Path, check: bool) -> tuple[dict[str, Any], list[Shard], np.ndarray | None]:
    """Manifest, shards and centroids; read again where another process has just replaced the files."""
    path = root / MANIFEST
    if not path.exists():
        what = (
            f"{shown(root)} is no index: it has no {MANIFEST}"
            if root.exists()
            else f"there is no folder {shown(root)}"
        )
        raise DataError(what, "Make one: beatmeter index add DIR E.npz")
    for attempt in range(_TRIES):
        manifest = read_json(path, DataError, REMEDY)
        require(manifest, _SHAPE, shown(path), DataError, REMEDY)
        if manifest["format"] != FORMAT or len(manifest["origin"]) != manifest["dim"]:
            raise DataError(
                f"{shown(path)} is of the format {manifest['format']}, this version reads {FORMAT}", REMEDY
            )
        try:
            shards = open_shards(root, manifest, check)
            cells = manifest.get("cells")
            return manifest, shards, _array(root, manifest, cells["centroids"], check) if cells else None
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise DataError(f"{shown(error.filename)} is missing from the index", REMEDY) from None
    raise RunError("unreachable")


def write_manifest(root: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a change; what was written, without the arrays that nothing uses any more."""
    used = {manifest["cells"]["centroids"]} if manifest.get("cells") else set()
    used |= {record[what] for record in manifest["shards"] for what in ("gone", "cells") if what in record}
    arrays = {name: size for name, size in manifest.get("arrays", {}).items() if name in used}
    written = {**manifest, "arrays": arrays}
    write_json(root / MANIFEST, written)
    return written


def remove_unnamed(root: Path, manifest: Mapping[str, Any]) -> None:
    """Take away the files of an index that its manifest does not name."""
    named = {record["name"] for record in manifest["shards"]} | {f"{name}.npy" for name in manifest["arrays"]}
    for pattern in _OURS:
        for path in root.glob(pattern):
            if path.name not in named:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def open_shards(root: Path, manifest: Mapping[str, Any], check: bool) -> list[Shard]:
    """The shards that a manifest names, with their removed rows and cells; `check` reads every byte."""
    shards = []
    for record in manifest["shards"]:
        shard = open_shard(root, record, manifest["dim"], check)
        if "gone" in record:
            shard.gone[_array(root, manifest, record["gone"], check)] = True
        if "cells" in record:
            shard.cells = _array(root, manifest, record["cells"], check)
        shards.append(shard)
    return shards


def _array(root: Path, manifest: Mapping[str, Any], name: str, check: bool) -> np.ndarray:
    if name not in manifest.get("arrays", {}):
        raise DataError(f"{shown(root / MANIFEST)} names {name} and does not describe it", REMEDY)
    return open_array(root / f"{name}.npy", manifest["arrays"][name], check)
