"""The first waist: how features are made (`FeatureSpec`), and the features of one track."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Float, Int, Shaped

from beatmeter.errors import FingerprintError, SchemaError
from beatmeter.schema.checks import canonical_json, require, sha256_json

SCHEMA_VERSION = 2  # of FeatureSpec; part of every fingerprint
RECORDED = {
    "encoder": 2,
    "code": 2,
}  # fields of FeatureSpec that came later, and the schema since which they are recorded


@dataclass(frozen=True)
class ChunkSpec:
    """How audio is cut: all in samples at `sample_rate` (Hz).

    Chunks of `length` start every `hop`; the last is aligned to the end of the track when more than
    `tail_min` samples are left uncovered; a track shorter than `length` is one chunk of its own length; one
    shorter than `minimum` is refused.

    With a `grid` above 0 chunks overlap: all of them, the last one too, start at multiples of `grid` (the hop
    of frames), so that the frames of a track lie on one grid, and of frames the middle of every chunk is
    kept.
    """

    sample_rate: int = 24_000
    length: int = 120_080
    hop: int = 120_000
    tail_min: int = 12_000
    minimum: int = 24_000
    grid: int = 0

    def __post_init__(self) -> None:
        require(
            min(self.sample_rate, self.length, self.hop, self.minimum) > 0 and self.tail_min >= 0,
            f"chunk lengths must be positive: {asdict(self)}",
        )
        require(self.minimum <= self.length, f"minimum {self.minimum} exceeds the chunk length {self.length}")
        if self.grid:
            fits = 0 < self.grid <= self.tail_min and self.hop % self.grid == 0 and self.hop < self.length
            what = f"chunks of {self.length} that start every {self.hop}"
            require(fits, f"{what} do not overlap on a grid of {self.grid}")


Unit = Literal["chunk", "window", "frame"]


@dataclass(frozen=True)
class PoolingSpec:
    """One pooling: `kind` names the function, `parameters` its settings (JSON values), `layers` are 1-based.

    A row of it belongs to one `unit` (a chunk, a window of joined chunks, or a frame) and has the shape
    `(len(layers), *shape)` with the axes `("layer", *axes)`. Only the kind `states` may have layer 0, what
    the first layer takes.
    """

    name: str
    kind: str
    unit: Unit
    layers: tuple[int, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("layers", "axes", "shape"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        ascending = len(self.layers) > 0 and list(self.layers) == sorted(set(self.layers))
        require(
            ascending and self.layers[0] >= (self.kind != "states"),
            f"pooling {self.name!r}: layers must be distinct, ascending and 1-based, not {self.layers}",
        )
        require(
            len(self.axes) == len(self.shape),
            f"pooling {self.name!r}: axes {self.axes} do not name the shape {self.shape}",
        )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row, `(layer, *axes)`."""
        return (len(self.layers), *self.shape)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the numbers of a feature, and nothing else. Its `fingerprint` names the store.

    `encoder` holds what decides the states besides the weights: the version of the encoder's code and every
    setting that it reads. `code` holds the versions of what is before and after it: decoding, the places of
    chunks. A spec of an earlier schema lacks both: its features were made before they were recorded, nobody
    can say by what, and its fingerprint is the one that it had. Versions of libraries and the device are
    provenance: they belong in commit records and run files.
    """

    backbone: str
    revision: str
    weights: str  # sha256 of the weights, or of the code version for a backbone without weights
    n_layers: int
    dim: int
    frame_hop: int  # samples between frames
    frame_span: int  # samples that one frame sees
    normalise: bool  # zero mean and unit variance per chunk before the network
    chunk: ChunkSpec
    poolings: tuple[PoolingSpec, ...]
    resampler: str = "soxr-hq"
    compute_dtype: str = "float32"
    store_dtype: str = "float16"
    encoder: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    code: Mapping[str, int] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "poolings", tuple(sorted(self.poolings, key=lambda p: p.name)))
        if self.schema not in range(1, SCHEMA_VERSION + 1):
            raise SchemaError(
                f"feature spec of schema {self.schema!r}; this version knows 1 to {SCHEMA_VERSION}",
                "Update beatmeter, or extract again.",
            )
        for name, since in RECORDED.items():
            object.__setattr__(
                self, name, json.loads(canonical_json(dict(getattr(self, name))))
            )  # as it comes back from a file
            require(
                since <= self.schema or not getattr(self, name),
                f"a feature spec of schema {self.schema} has no field {name!r}",
            )
        names = [p.name for p in self.poolings]
        require(len(names) > 0, "a FeatureSpec needs at least one pooling")
        require(len(set(names)) == len(names), f"poolings named twice: {names}")
        for p in self.poolings:
            require(
                p.layers[-1] <= self.n_layers,
                f"pooling {p.name!r} wants layer {p.layers[-1]}; {self.backbone} has {self.n_layers}",
            )

    def __getitem__(self, pooling: str) -> PoolingSpec:
        for p in self.poolings:
            if p.name == pooling:
                return p
        raise SchemaError(
            f"no pooling {pooling!r} in these features",
            f"They hold: {', '.join(p.name for p in self.poolings)}.",
        )

    def only(self, poolings: Sequence[str]) -> FeatureSpec:
        """The same features with just these poolings."""
        return replace(self, poolings=tuple(self[name] for name in poolings))

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.chunk.sample_rate / self.frame_hop

    @property
    def last_layer(self) -> int:
        """The deepest layer that any pooling wants: an encoder may stop after it."""
        return max(p.layers[-1] for p in self.poolings)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, of the fields of its schema; `from_json` is the inverse."""
        values = {name: value for name, value in asdict(self).items() if RECORDED.get(name, 0) <= self.schema}
        if not self.chunk.grid:  # fingerprints from before chunks could overlap stay what they are
            del values["chunk"]["grid"]
        return json.loads(canonical_json(values))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FeatureSpec:
        known = {f.name for f in fields(cls)}
        unknown = set(value) - known
        if unknown:
            raise SchemaError(
                f"feature spec with unknown fields {sorted(unknown)}",
                "It was written by another version of beatmeter: update, or extract again.",
            )
        if "schema" not in value:
            raise SchemaError("feature spec that cannot be read: it has no schema")
        try:
            return cls(
                **{
                    **value,
                    "chunk": ChunkSpec(**value["chunk"]),
                    "poolings": tuple(PoolingSpec(**p) for p in value["poolings"]),
                }
            )
        except (TypeError, KeyError, ValueError) as error:
            raise SchemaError(f"feature spec that cannot be read: {error}") from error

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical JSON."""
        return sha256_json(self.to_json())

    def differences(self, other: FeatureSpec) -> list[str]:
        """One line per field that differs, `field: mine != theirs`, nested fields by path."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        missing = "(absent)"
        return [
            f"{key}: {mine.get(key, missing)} != {theirs.get(key, missing)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key, missing) != theirs.get(key, missing)
        ]

    def require_same(self, other: FeatureSpec, where: str) -> None:
        """Raise FingerprintError naming every field in which `other` (found at `where`) differs from this
        spec."""
        if self.fingerprint != other.fingerprint:
            self._refuse(other.differences(self), where)

    def require_agreement(self, saved: FeatureSpec, where: str) -> None:
        """Raise FingerprintError as `require_same` does where the spec of a saved run, found at `where`, says
        something else. What was not recorded yet when the run was saved is not asked for."""
        if not self.agrees(saved):
            self._refuse(saved.differences(self.as_of(saved.schema)), where)

    def agrees(self, saved: FeatureSpec) -> bool:
        """Whether `saved`, perhaps of an earlier schema, describes these features as far as it says
        anything."""
        return self.as_of(saved.schema).fingerprint == saved.fingerprint

    def _refuse(self, lines: Sequence[str], where: str) -> NoReturn:
        raise FingerprintError(
            f"features in {where} were made another way (there != wanted): "
            f"{'; '.join(lines[:6])}{' ...' if len(lines) > 6 else ''}",
            "Use another cache folder, or the settings that made these features.",
        )

    def as_of(self, schema: int) -> FeatureSpec:
        """This spec without the fields that an earlier `schema` did not record; the spec itself when it is no
        later."""
        if schema >= self.schema:
            return self
        empty: dict[str, Any] = {name: {} for name, since in RECORDED.items() if since > schema}
        return replace(self, schema=schema, **empty)

    def why_not(self, wanted: FeatureSpec) -> str:
        """In words, in what these features differ from the `wanted` ones (these != wanted), what was not
        recorded yet first."""
        later = [name for name, since in RECORDED.items() if self.schema < since <= wanted.schema]
        parts = [f"made before {' and '.join(later)} were recorded"] if later else []
        return "; ".join(parts + self.differences(wanted.as_of(self.schema))[:4])

    def covers(self, wanted: FeatureSpec) -> bool:
        """True when these features contain the wanted ones: all fields equal, poolings and layers a
        superset."""
        mine, theirs = self.to_json(), wanted.to_json()
        if any(mine.get(k) != theirs.get(k) for k in mine.keys() | theirs.keys() if k != "poolings"):
            return False
        for p in wanted.poolings:
            here = next((q for q in self.poolings if q.name == p.name), None)
            if here is None or not set(p.layers) <= set(here.layers):
                return False
            if (p.kind, p.unit, p.axes, p.shape, canonical_json(p.parameters)) != (
                here.kind,
                here.unit,
                here.axes,
                here.shape,
                canonical_json(here.parameters),
            ):
                return False
        return True


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v
            for name, item in value.items()
            for k, v in _flat(item, f"{prefix}.{name}" if prefix else name).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):  # poolings, by name
        return {k: v for item in value for k, v in _flat(item, f"{prefix}.{item['name']}").items()}
    return {prefix: value}


@dataclass(frozen=True)
class Pooled:
    """Rows of one pooling of one track: `values` (row, layer, *axes), `times` (row, 2) start and end in
    seconds, `frames` (row,) how many frames each row summarises."""

    values: Shaped[np.ndarray, "row ..."]
    times: Float[np.ndarray, "row 2"]
    frames: Int[np.ndarray, " row"]

    def __post_init__(self) -> None:
        n = len(self.values)
        require(
            self.times.shape == (n, 2) and self.frames.shape == (n,),
            f"times {self.times.shape} or frames {self.frames.shape} do not match {n} rows",
        )


@dataclass(frozen=True)
class Features:
    """First waist: the features of one track, by pooling name, with the spec that made them. Whether the
    values can be kept (finite, in the range of the store's dtype) is checked by the store, which names track,
    pooling and layer."""

    spec: FeatureSpec
    samples: int  # length of the track at spec.chunk.sample_rate
    pooled: Mapping[str, Pooled]

    def __post_init__(self) -> None:
        wanted = {p.name for p in self.spec.poolings}
        require(
            set(self.pooled) == wanted, f"features hold {sorted(self.pooled)}, the spec says {sorted(wanted)}"
        )
        for name, rows in self.pooled.items():
            shape = self.spec[name].row_shape
            require(
                rows.values.shape[1:] == shape,
                f"pooling {name!r} has rows of shape {rows.values.shape[1:]}, the spec says {shape}",
            )
