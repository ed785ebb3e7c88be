"""The commit record: what a segment holds, track by track, and how to tell that it still does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from beatmeter.store.journal import RecordError
from beatmeter.store.layout import ArrayLayout, StoreLayout

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
RECEIPT = {"receipt": True}  # in the provenance: whoever commits this leaves a receipt
_LARGEST = 2**48  # rows, bytes or samples beyond this are nonsense


@dataclass(frozen=True)
class Extent:
    """One pooling of a segment. Per array: `rows`, `bytes` of the shard file, `checksum`, the digest of all
    row checksums. Per track, in the order of the record's keys: `first` row, row `counts`, `digests` of their
    row checksums."""

    rows: int
    bytes: int
    checksum: int
    first: tuple[int, ...]
    counts: tuple[int, ...]
    digests: tuple[int, ...]


@dataclass(frozen=True)
class Record:
    """One commit. Built from JSON it has been checked: every number possible, rows of tracks adjacent and
    complete.

    `segment` is empty, with no tracks, in a record that only takes segments away. `replaces` lists segments
    whose tracks are in this one or are given up; they are ignored from here on. `samples` are track lengths
    at the chunks' sample rate; times of rows follow from them (`beatmeter.audio.chunking`).
    """

    segment: str
    fingerprint: str
    keys: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
    extents: Mapping[str, Extent] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaves_receipt(self) -> bool:
        """Whether its writer leaves a receipt once it is acknowledged; earlier versions did not."""
        return bool(self.provenance.get("receipt", False))

    def statements(self) -> dict[str, tuple[Any, ...]]:
        """What it says of each track: its length, and per pooling its first row, its number of rows and their
        digest."""
        columns = [
            column for _, e in sorted(self.extents.items()) for column in (e.first, e.counts, e.digests)
        ]
        return dict(zip(self.keys, zip(self.samples, *columns, strict=True), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return {
            "segment": self.segment,
            "fingerprint": self.fingerprint,
            "arrays": {
                name: {"rows": e.rows, "bytes": e.bytes, "crc32c": e.checksum}
                for name, e in self.extents.items()
            },
            "tracks": {
                "key": self.keys,
                "samples": self.samples,
                "rows": {
                    name: {"first": e.first, "count": e.counts, "crc32c": e.digests}
                    for name, e in self.extents.items()
                },
            },
            "replaces": self.replaces,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], layout: StoreLayout) -> Record:
        """Read and check a record. Raises RecordError; `FingerprintError` is left to the caller, who knows
        the file."""
        try:
            tracks, arrays = value["tracks"], value["arrays"]
            keys, samples = tuple(tracks["key"]), tuple(tracks["samples"])
            segment, fingerprint, replaces = value["segment"], value["fingerprint"], tuple(value["replaces"])
            extents = {}
            for name, array in arrays.items():
                at = tracks["rows"][name]
                extents[name] = Extent(
                    array["rows"],
                    array["bytes"],
                    array["crc32c"],
                    tuple(at["first"]),
                    tuple(at["count"]),
                    tuple(at["crc32c"]),
                )
            record = cls(segment, fingerprint, keys, samples, extents, replaces, dict(value["provenance"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RecordError(f"a field is missing or has the wrong type: {error!r}") from error
        if fingerprint != layout.fingerprint:
            raise RecordError(
                f"it belongs to features with fingerprint {str(fingerprint)[:16]}, this store holds "
                f"{layout.fingerprint[:16]}"
            )
        record._check(layout)
        return record

    def _check(self, layout: StoreLayout) -> None:
        _require(
            all(isinstance(s, str) and _SEGMENT.fullmatch(s) for s in self.replaces),
            "a name of a replaced segment is impossible",
        )
        if self.segment == "" and not self.keys and not self.extents:
            return
        n = len(self.keys)
        _require(
            isinstance(self.segment, str) and _SEGMENT.fullmatch(self.segment) is not None,
            "the segment's name is impossible",
        )
        _require(
            n > 0 and set(map(type, self.keys)) == {str} and all(map(KEY.fullmatch, self.keys)),
            "a track key is impossible",
        )
        _require(len(set(self.keys)) == n, "a track key occurs twice")
        _require(_whole(self.samples, n, 1), "a track length is impossible")
        _require(self.extents.keys() == layout.arrays.keys(), "its poolings are not the store's")
        chunk = layout.spec.chunk
        for name, e in self.extents.items():
            wrong = _wrong_with(e, n, layout.arrays[name])
            _require(not wrong, f"pooling {name!r}: {wrong}")
            most = (
                int(layout.arrays[name].pooling.parameters.get("window", 1)) * chunk.hop
            )  # samples that one row can stand for
            fits = (
                max(s - c * most for s, c in zip(self.samples, e.counts, strict=True)) <= chunk.length + most
            )
            _require(fits, f"pooling {name!r}: a track is longer than its rows can be")


def receipt_name(segment: str) -> str:
    """Name of the receipt of a segment's commit in the store."""
    return f"receipts/{segment}.json"


def _wrong_with(e: Extent, n: int, array: ArrayLayout) -> str:
    """What is impossible about the rows of `n` tracks, or nothing."""
    if not (_whole((e.rows, e.bytes), 2, 1) and _checksums((e.checksum,), 1)):
        return "its rows, bytes or checksum are impossible"
    if not (_whole(e.counts, n, 1) and _whole(e.first, n, 0) and _checksums(e.digests, n)):
        return "the rows of a track are impossible"
    if (*e.first, e.rows) != tuple(accumulate(e.counts, initial=0)):
        return "the rows of the tracks do not add up"
    return "" if e.bytes == array.size(e.rows) else f"{e.rows} rows are not {e.bytes} bytes"


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise RecordError(what)


def _whole(values: tuple[Any, ...], n: int, least: int) -> bool:
    return (
        len(values) == n
        and set(map(type, values)) == {int}
        and min(values) >= least
        and max(values) < _LARGEST
    )


def _checksums(values: tuple[Any, ...], n: int) -> bool:
    return len(values) == n and set(map(type, values)) == {int} and min(values) >= 0 and max(values) < 2**32
