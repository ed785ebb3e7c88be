"""A snapshot as one HDF5 file that explains itself: for MATLAB, R, Julia, and anybody who has never heard of
Zarr."""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from beatmeter import __version__
from beatmeter.audio.chunking import Layout, rows
from beatmeter.errors import StoreError, shown
from beatmeter.store.layout import DTYPES
from beatmeter.store.place import explained
from beatmeter.store.reader import Snapshot

_BLOCK = 32 << 20  # bytes in memory at a time
_ABOUT = (
    "Audio features, one group per pooling. Row r of <pooling>/values belongs to the track i with offsets[i] "
    "<= r < offsets[i+1]; "
    "keys[i] is the sha256 of that track's audio file; times[r] are the row's start and end in seconds."
)


def export_hdf5(
    snapshot: Snapshot,
    out: Path | str,
    poolings: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Write every track of a snapshot, sorted by key, to `out`, and return the file's bytes.

    The file appears when it is complete. Layout: attributes `spec` (JSON), `fingerprint`, `snapshot`;
    datasets `keys` (track,) and `samples` (track,); per pooling a group with `values` (row, layer, *axes),
    `offsets` (track + 1,), `times` (row, 2) in seconds, `frames` (row,) and `layers` (layer,). Raises
    StoreError.
    """
    out = Path(out)
    names = (
        [p.name for p in snapshot.spec.poolings]
        if poolings is None
        else [snapshot.spec[name].name for name in poolings]
    )
    if out.exists() and not overwrite:
        raise StoreError(f"{shown(out)} exists", "Choose another name, or allow it to be overwritten.")
    draft = out.with_name(f".{out.name[:100]}.{secrets.token_hex(4)}.part")
    with explained("exporting", out):
        try:
            with h5py.File(draft, "x") as file:
                _write_root(file, snapshot)
                for done, name in enumerate(names):
                    progress(done, len(names))
                    _write_pooling(file.create_group(name), snapshot, name)
                progress(len(names), len(names))
            with draft.open("rb+") as written:
                os.fsync(written.fileno())
            draft.replace(out)
        finally:
            draft.unlink(missing_ok=True)
        return out.stat().st_size


def _write_root(file: h5py.File, snapshot: Snapshot) -> None:
    file.attrs["about"] = _ABOUT
    file.attrs["made_by"] = f"beatmeter {__version__}"
    file.attrs["fingerprint"] = snapshot.spec.fingerprint
    file.attrs["snapshot"] = snapshot.id
    file.attrs["spec"] = json.dumps(snapshot.spec.to_json(), indent=1, sort_keys=True)
    keys = snapshot.keys
    file.create_dataset(
        "keys",
        data=np.array(list(keys), dtype="S") if len(keys) else None,
        shape=(len(keys),),
        dtype=None if len(keys) else "S1",
    )
    file.create_dataset("samples", data=snapshot.lengths(), dtype="i8").attrs["unit"] = (
        f"samples at {snapshot.spec.chunk.sample_rate} Hz"
    )


def _write_pooling(group: h5py.Group, snapshot: Snapshot, name: str) -> None:
    pooling = snapshot.spec[name]
    keys = snapshot.keys
    counts = snapshot.row_counts(None, name)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1])
    for attribute, value in (
        ("kind", pooling.kind),
        ("unit", pooling.unit),
        ("parameters", json.dumps(dict(pooling.parameters), sort_keys=True)),
    ):
        group.attrs[attribute] = value
    values = group.create_dataset("values", (total, *pooling.row_shape), DTYPES[snapshot.spec.store_dtype])
    for axis, label in enumerate(("row", "layer", *pooling.axes)):
        values.dims[axis].label = label
    times = group.create_dataset("times", (total, 2), "f8")
    times.attrs["unit"] = "seconds: start, end"
    frames = group.create_dataset("frames", (total,), "i8")
    group.create_dataset("offsets", data=offsets, dtype="i8")
    group.create_dataset("layers", data=np.array(pooling.layers), dtype="i8")
    samples = snapshot.lengths()
    row_bytes = values.dtype.itemsize * math.prod(pooling.row_shape)
    edges = np.flatnonzero(np.diff(offsets[:-1] * row_bytes // _BLOCK, prepend=-1)).tolist()
    for a, b in itertools.pairwise([*edges, len(keys)]):
        block = slice(int(offsets[a]), int(offsets[b]))
        values[block] = snapshot.load(keys[a:b], name).values
        laid = [rows(Layout.of(int(n), snapshot.spec), pooling) for n in samples[a:b]]
        times[block] = np.concatenate([t for t, _ in laid])
        frames[block] = np.concatenate([f for _, f in laid])
