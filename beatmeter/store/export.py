"""A snapshot as one HDF5 file, or as one Zarr group, that explains itself: for programs and people who know
nothing of segments."""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import numpy as np
import zarr

from beatmeter import __version__
from beatmeter.audio.chunking import Layout, rows
from beatmeter.errors import StoreError, shown
from beatmeter.runtime.progress import SILENT, Reporter, Tick
from beatmeter.store.backend import explained
from beatmeter.store.layout import DTYPES
from beatmeter.store.reader import Snapshot

Format = Literal["h5", "zarr"]

_BLOCK = 32 << 20  # bytes in memory at a time
_CHUNK = 4 << 20  # bytes of a chunk of an exported Zarr array
_ABOUT = (
    "Audio features, one group per pooling. Row r of <pooling>/values belongs to the track i with offsets[i] "
    "<= r < offsets[i+1]; "
    "keys[i] is the sha256 of that track's audio file; times[r] are the row's start and end in seconds."
)


class _Group(Protocol):
    """What both formats can do."""

    def group(self, name: str, attributes: Mapping[str, str]) -> _Group:
        """A new group in this one."""

    def describe(self, attributes: Mapping[str, str]) -> None:
        """Set attributes."""

    def array(
        self, name: str, shape: tuple[int, ...], dtype: Any, axes: Sequence[str], unit: str = ""
    ) -> Any:
        """A new array of this shape, whose rows can be set."""

    def texts(self, name: str, values: Sequence[str], axis: str) -> None:
        """A new array of texts."""


class _Hdf5:
    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def group(self, name: str, attributes: Mapping[str, str]) -> _Hdf5:
        made = _Hdf5(self._group.create_group(name))
        made.describe(attributes)
        return made

    def describe(self, attributes: Mapping[str, str]) -> None:
        self._group.attrs.update(attributes)

    def array(
        self, name: str, shape: tuple[int, ...], dtype: Any, axes: Sequence[str], unit: str = ""
    ) -> Any:
        made = self._group.create_dataset(name, shape, dtype)
        for axis, label in enumerate(axes):
            made.dims[axis].label = label
        if unit:
            made.attrs["unit"] = unit
        return made

    def texts(self, name: str, values: Sequence[str], axis: str) -> None:
        made = self.array(name, (len(values),), f"S{max(map(len, values), default=1)}", (axis,))
        if values:
            made[...] = np.array(values, "S")


class _Zarr:
    def __init__(self, group: zarr.Group) -> None:
        self._group = group

    def group(self, name: str, attributes: Mapping[str, str]) -> _Zarr:
        return _Zarr(self._group.create_group(name, attributes=dict(attributes)))

    def describe(self, attributes: Mapping[str, str]) -> None:
        self._group.update_attributes(dict(attributes))

    def array(
        self, name: str, shape: tuple[int, ...], dtype: Any, axes: Sequence[str], unit: str = ""
    ) -> Any:
        row = max(1, np.dtype(dtype).itemsize * math.prod(shape[1:]))
        return self._group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(min(max(1, shape[0]), max(1, _CHUNK // row)), *(max(1, n) for n in shape[1:])),
            dimension_names=list(axes),
            attributes={"unit": unit} if unit else {},
        )

    def texts(self, name: str, values: Sequence[str], axis: str) -> None:
        made = self._group.create_array(
            name, shape=(len(values),), dtype=str, chunks=(max(1, len(values)),), dimension_names=[axis]
        )
        if values:
            made[...] = np.array(values, dtype=object)


def export(
    snapshot: Snapshot,
    out: Path | str,
    kind: Format = "h5",
    poolings: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Reporter = SILENT,
) -> int:
    """Write every track of a snapshot, sorted by key, to `out`, and return the bytes on disk.

    `kind` is h5 (one file) or zarr (a folder: Zarr v3, each array whole). It appears when it is complete.
    Layout: attributes `spec` (JSON), `fingerprint`, `snapshot`; arrays `keys` (track,) and `samples`
    (track,); per pooling a group with `values` (row, layer, *axes), `offsets` (track + 1,), `times` (row, 2)
    in seconds, `frames` (row,) and `layers` (layer,). Raises StoreError.
    """
    out = Path(out)
    wanted = [p.name for p in snapshot.spec.poolings] if poolings is None else dict.fromkeys(poolings)
    names = [snapshot.spec[name].name for name in wanted]
    if out.exists() and not overwrite:
        raise StoreError(f"{shown(out)} exists", "Choose another name, or allow it to be overwritten.")
    if out.exists() and kind == "zarr" and not (out / "zarr.json").is_file():
        raise StoreError(f"{shown(out)} is no Zarr group, and is not replaced by one", "Choose another name.")
    draft = out.with_name(f".{out.name[:100]}.{secrets.token_hex(4)}.part")
    replaced = draft.with_suffix(".old")
    total = sum(int(snapshot.row_counts(None, name).sum()) for name in names)
    with explained("exporting", out), progress.track("exporting", total, "rows") as tick:
        try:
            if kind == "h5":
                with h5py.File(draft, "x") as file:
                    _write(_Hdf5(file), snapshot, names, tick)
                with draft.open("rb+") as written:
                    os.fsync(written.fileno())
            else:
                draft.mkdir()
                _write(_Zarr(zarr.create_group(draft)), snapshot, names, tick)
                if out.exists():  # a folder that is not empty cannot be replaced at once
                    out.rename(replaced)
            draft.replace(out)
        finally:
            for left in (draft, replaced):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        return _bytes(out)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _write(root: _Group, snapshot: Snapshot, names: Sequence[str], tick: Tick) -> None:
    about = {
        "about": _ABOUT,
        "made_by": f"beatmeter {__version__}",
        "fingerprint": snapshot.spec.fingerprint,
        "snapshot": snapshot.id,
        "spec": json.dumps(snapshot.spec.to_json(), indent=1, sort_keys=True),
    }
    root.describe(about)
    keys = snapshot.keys
    unit = f"samples at {snapshot.spec.chunk.sample_rate} Hz"
    root.texts("keys", list(keys), "track")
    root.array("samples", (len(keys),), "i8", ("track",), unit)[...] = snapshot.lengths()
    for name in names:
        _write_pooling(root, snapshot, name, tick)


def _write_pooling(root: _Group, snapshot: Snapshot, name: str, tick: Tick) -> None:
    pooling = snapshot.spec[name]
    keys = snapshot.keys
    counts = snapshot.row_counts(None, name)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1])
    parameters = json.dumps(dict(pooling.parameters), sort_keys=True)
    group = root.group(name, {"kind": pooling.kind, "unit": pooling.unit, "parameters": parameters})
    dtype = np.dtype(DTYPES[snapshot.spec.store_dtype])
    values = group.array("values", (total, *pooling.row_shape), dtype, ("row", "layer", *pooling.axes))
    times = group.array("times", (total, 2), "f8", ("row", "end"), "seconds: start, end")
    frames = group.array("frames", (total,), "i8", ("row",))
    group.array("offsets", (len(offsets),), "i8", ("track",))[...] = offsets
    group.array("layers", (len(pooling.layers),), "i8", ("layer",))[...] = np.array(pooling.layers)
    samples = snapshot.lengths()
    row_bytes = dtype.itemsize * math.prod(pooling.row_shape)
    edges = np.flatnonzero(np.diff(offsets[:-1] * row_bytes // _BLOCK, prepend=-1)).tolist()
    for a, b in itertools.pairwise([*edges, len(keys)]):
        block = slice(int(offsets[a]), int(offsets[b]))
        values[block] = snapshot.load(keys[a:b], name).values
        laid = [rows(Layout.of(int(n), snapshot.spec), pooling) for n in samples[a:b]]
        times[block] = np.concatenate([t for t, _ in laid])
        frames[block] = np.concatenate([f for _, f in laid])
        tick(block.stop - block.start)
