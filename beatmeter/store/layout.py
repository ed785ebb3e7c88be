"""What bytes a segment is made of: one Zarr v3 group, one array per pooling, one shard per array.

Inner chunks are one row each, all layers of it, uncompressed, and each is followed by its CRC-32C; the
shard's index comes last. So row `i` lies at byte `i * stride`: a reader needs no index and no Zarr library to
find it, and any Zarr v3 reader finds the same numbers.

Beside a shard lie the checksums of single layers, four bytes for each layer of each row: with them one
layer is checked without reading the others. They join to the checksums of the rows, which the records vouch
for; a segment of an earlier version has none, and is read by whole rows then (`beatmeter cache compact` adds
them).

Why one row: 600 MB of (24, 2, 1024) float16 rows copied out, speed relative to a numpy memmap of the bare
array (warm cache, AMD EPYC, Linux 6.18, ext4; `benchmarks/bench_store.py` compares the whole reader)

    inner chunk             scan   32 random tracks   one layer   one layer, cold
    one row                 1.03   1.03               0.99        92 ms
    one row and layer       0.77   0.79               0.89        -
    64 rows of one layer    0.61   0.49               1.40        -
    all rows of one layer   0.59   0.51               1.66        13 ms

Heads mix all layers, so scans and batches are the daily work and one row wins. Chunks of one layer win only
for probes of one layer of a store that is not in memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import google_crc32c
import numpy as np

from beatmeter.audio.chunking import Layout, row_count
from beatmeter.errors import StoreError
from beatmeter.schema import FeatureSpec, PoolingSpec, canonical_json

FORMAT = 1  # of the folder; a reader refuses another
DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
_EXPONENT: dict[str, Any] = {"float16": np.uint16(0x7C00), "float32": np.uint32(0x7F800000)}
_LEAST_LAYER = 32  # bytes of a layer of a row from which it has a checksum of its own
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed: the highest bit stands for x^0
_CHECKED_BYTES = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class NewerFormatError(StoreError):
    """A store that another version of beatmeter wrote in another way."""


@dataclass(frozen=True)
class ArrayLayout:
    """The bytes of one pooling's array, whatever its number of rows."""

    pooling: PoolingSpec
    dtype_name: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian."""
        return DTYPES[self.dtype_name]

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """(layer, *axes)"""
        return self.pooling.row_shape

    @cached_property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    @cached_property
    def stride(self) -> int:
        """Bytes from one row to the next: the row, its checksum, and zeros up to a cache line when rows are
        long."""
        dense = self.row_bytes + 4
        return -(-dense // 64) * 64 if self.row_bytes >= 1024 else dense

    @property
    def shard(self) -> str:
        """Name of the only shard, inside the segment."""
        return f"{self.pooling.name}/c{'.0' * (1 + len(self.row_shape))}"

    @cached_property
    def layer_bytes(self) -> int:
        """Of one layer of a row."""
        return self.row_bytes // self.row_shape[0]

    @property
    def has_layer_sums(self) -> bool:
        """Whether the layers of this array have checksums of their own: not where they would be no shorter
        than what they save."""
        return self.row_shape[0] > 1 and self.layer_bytes >= _LEAST_LAYER

    @property
    def layer_sums_name(self) -> str:
        """Name of the file of the layers' checksums, inside the segment: (row, layer), little-endian
        uint32."""
        return f"{self.pooling.name}/layers.crc32c"

    @property
    def layer_sums_stride(self) -> int:
        """Bytes of that file from one row to the next."""
        return 4 * self.row_shape[0]

    @property
    def metadata_name(self) -> str:
        """Name of the array's metadata, inside the segment."""
        return f"{self.pooling.name}/zarr.json"

    def size(self, rows: int) -> int:
        """Bytes of the shard file: rows, an index of 16 bytes per row, and the index's checksum."""
        return rows * (self.stride + 16) + 4

    def index(self, rows: int) -> bytes:
        """The shard's index: little-endian (offset, length) of every row, then the CRC-32C of that."""
        table = np.empty((rows, 2), "<u8")
        table[:, 0] = np.arange(rows, dtype="<u8") * np.uint64(self.stride)
        table[:, 1] = self.row_bytes + 4
        body = table.tobytes()
        checksum: int = google_crc32c.value(body)
        return body + checksum.to_bytes(4, "little")

    def metadata(self, rows: int) -> bytes:
        """The array's `zarr.json`."""
        shape = [rows, *self.row_shape]
        sharding = {
            "chunk_shape": [1, *self.row_shape],
            "codecs": _CHECKED_BYTES,
            "index_codecs": _CHECKED_BYTES,
            "index_location": "end",
        }
        return _document(
            node_type="array",
            shape=shape,
            data_type=self.dtype_name,
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": shape}},
            chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
            fill_value="NaN",
            codecs=[{"name": "sharding_indexed", "configuration": sharding}],
            dimension_names=["row", "layer", *self.pooling.axes],
            attributes={"layers": list(self.pooling.layers)},
        )

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Rows (row, layer, *axes) in any float dtype as stored bytes (row, stride), checksums included."""
        n = len(values)
        stored = np.empty((n, self.stride), np.uint8)
        rows = stored[:, : self.row_bytes]
        with np.errstate(over="ignore"):  # becomes infinite, which `unstorable` counts
            rows.view(self.dtype)[...] = values.reshape(n, -1)
        stored[:, self.row_bytes : self.row_bytes + 4] = (
            checksums(rows).astype("<u4").view(np.uint8).reshape(n, 4)
        )
        stored[:, self.row_bytes + 4 :] = 0
        return stored

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored rows (row, stride) as a view of their values (row, layer, *axes)."""
        return stored[:, : self.row_bytes].view(self.dtype).reshape(len(stored), *self.row_shape)

    def split(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored rows (row, stride) as bytes of values (row, row_bytes), a view, and checksums (row,)
        uint32."""
        return stored[:, : self.row_bytes], stored[:, self.row_bytes : self.row_bytes + 4].copy().view("<u4")[
            :, 0
        ]

    def layer_sums(self, rows: np.ndarray, layers: Iterable[int] | None = None) -> np.ndarray:
        """CRC-32C (row, layer) of the layers at these positions of rows of bytes (row, bytes); default: of
        all layers of whole rows."""
        size, n = self.layer_bytes, self.row_shape[0]
        if layers is not None:
            return np.stack([checksums(rows[:, i * size : (i + 1) * size]) for i in layers], axis=1)
        crc32c = google_crc32c.value
        split = rows[:, : self.row_bytes].reshape(len(rows), n, size)  # a view
        sums = [crc32c(layer) for row in split for layer in row]
        return np.array(sums, np.uint32).reshape(len(rows), n)

    def joined(self, layer_sums: np.ndarray) -> np.ndarray:
        """CRC-32C (row,) of whole rows from those of all their layers (row, layer)."""
        tables = _shift_tables(self.layer_bytes)
        whole = layer_sums[:, 0].astype(np.uint32)
        for i in range(1, layer_sums.shape[1]):
            shifted = tables[0][whole & 0xFF]
            for k in range(1, 4):
                shifted ^= tables[k][(whole >> np.uint32(8 * k)) & 0xFF]
            whole = shifted ^ layer_sums[:, i]
        return whole

    def unstorable(self, stored: np.ndarray) -> np.ndarray:
        """How many values of each layer (layer,) are not finite as stored: they were not, or do not fit the
        dtype."""
        mask = _EXPONENT[self.dtype_name]
        bits = stored[:, : self.row_bytes].view(mask.dtype)
        if not ((bits & mask) == mask).any():
            return np.zeros(self.row_shape[0], int)
        bad: np.ndarray = ((bits & mask) == mask).reshape(len(stored), self.row_shape[0], -1).sum(axis=(0, 2))
        return bad


def checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32C of each row of bytes (row, byte), uint32."""
    crc32c = google_crc32c.value
    return np.array([crc32c(row) for row in rows], np.uint32)


@lru_cache(maxsize=16)
def _shift_tables(size: int) -> np.ndarray:
    """(4, 256) uint32: what each byte of a CRC-32C becomes when `size` bytes follow, so that
    crc(a + b) = shifted(crc(a)) ^ crc(b). Zlib's crc32_combine: multiplication by x^(8 size) modulo the
    polynomial."""
    power, square, bits = 1 << 31, 1 << 23, size  # x^0, x^8
    while bits:
        if bits & 1:
            power = _multiplied(power, square)
        square, bits = _multiplied(square, square), bits >> 1
    columns = [_multiplied(1 << bit, power) for bit in range(32)]
    tables = np.zeros((4, 256), np.uint32)
    for bit, column in enumerate(columns):
        tables[bit // 8, (np.arange(256) >> bit % 8) & 1 == 1] ^= np.uint32(column)
    return tables


def _multiplied(a: int, b: int) -> int:
    """The product of two polynomials over GF(2) modulo that of CRC-32C."""
    product, bit = 0, 1 << 31
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product


def digest(row_checksums: np.ndarray) -> int:
    """CRC-32C over row checksums, 4 little-endian bytes each: what records keep for a track and for an array.

    Not over the stored bytes: a CRC over data that carry their own CRC is the same number whatever the data
    are.
    """
    return int(google_crc32c.value(np.ascontiguousarray(row_checksums, "<u4").tobytes()))


class StoreLayout:
    """How the features of one spec are stored: `arrays` by pooling name, in the spec's order, and the
    metadata of groups.

    Raises StoreError for a spec that cannot be stored.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        if spec.store_dtype not in DTYPES:
            raise StoreError(
                f"a store cannot keep {spec.store_dtype}", f"Choose store_dtype from: {', '.join(DTYPES)}."
            )
        for p in spec.poolings:
            if not _SAFE_NAME.fullmatch(p.name) or math.prod(p.row_shape) < 1:
                raise StoreError(
                    f"pooling {p.name!r} of row shape {p.row_shape} cannot be stored",
                    "Names are letters, digits, '_', '-' and '.'.",
                )
        self.spec, self.fingerprint = spec, spec.fingerprint
        self.arrays = {p.name: ArrayLayout(p, spec.store_dtype) for p in spec.poolings}

    def bytes_of(self, chunks: Layout) -> int:
        """Bytes on disk of the features of a track with this layout of chunks."""
        return sum(row_count(chunks, array.pooling) * array.stride for array in self.arrays.values())

    def group_metadata(self) -> dict[str, bytes]:
        """The metadata of the groups above the segments, by name: the store itself, which tells what features
        these are, and the group of the segments."""
        told = {"fingerprint": self.fingerprint, "spec": self.spec.to_json()}
        return {
            "zarr.json": _document(node_type="group", attributes={"format": FORMAT, **told}),
            "segments/zarr.json": _document(node_type="group", attributes={}),
        }

    def segment_metadata(self, record: bytes) -> bytes:
        """A segment's `zarr.json`: it describes itself, so a lost record or a lost root can be rebuilt from
        it."""
        told = {"fingerprint": self.fingerprint, "spec": self.spec.to_json()}
        return _document(node_type="group", attributes={**told, "record": record.decode("ascii")})


def read_spec(metadata: Mapping[str, Any]) -> FeatureSpec:
    """The spec in a root's or segment's metadata. Raises StoreError when it is damaged or of another
    format."""
    attributes = metadata.get("attributes")
    if not isinstance(attributes, dict) or "spec" not in attributes:
        raise StoreError("the metadata hold no feature spec")
    if attributes.get("format", FORMAT) != FORMAT:
        raise NewerFormatError(
            f"the store has format {attributes['format']!r}, this version reads {FORMAT}",
            "Update beatmeter, or extract again.",
        )
    spec = FeatureSpec.from_json(attributes["spec"])
    if spec.fingerprint != attributes.get("fingerprint"):
        raise StoreError("the feature spec does not match its fingerprint")
    return spec


def _document(**fields: Any) -> bytes:
    return (canonical_json({"zarr_format": 3, **fields}) + "\n").encode()
