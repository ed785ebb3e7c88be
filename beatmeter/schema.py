"""The words of beatmeter, checked when built: Track, FeatureSpec, Features, Predictions, Finding.

Nothing here knows torch, files or tasks. Arrays are numpy; times are seconds; axes are named in the docstrings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from jaxtyping import Float, Int, Shaped

from beatmeter.errors import DataError, FingerprintError, SchemaError

SPLITS = ("train", "val", "test")
SCHEMA_VERSION = 2  # of FeatureSpec; part of every fingerprint
RECORDED = {"encoder": 2, "code": 2}  # fields of FeatureSpec that came later, and the schema since which they are recorded


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value, on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex sha256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _require(condition: bool, what: str, hint: str = "") -> None:
    if not condition:
        raise SchemaError(what, hint)


@dataclass(frozen=True)
class Track:
    """One audio file and what is known of it.

    `labels` maps a class name to its weight in (0, 1] (several for polyrhythm; empty when unlabelled); `primary` is
    the heaviest class, kept explicitly because an argmax over ties would silently pick one. Tracks of one `group`
    (song, tune, artist) never cross splits. `extra` holds further columns of the table it came from.
    """

    id: str
    path: Path
    labels: Mapping[str, float] = field(default_factory=dict)
    primary: str | None = None
    group: str = ""
    source: str = ""
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.id), f"a track of {self.path} has an empty id")
        for name, weight in self.labels.items():
            _require(0 < weight <= 1, f"track {self.id}: weight {weight} of label {name!r} is outside (0, 1]")
        if self.primary is None and len(self.labels) == 1:
            object.__setattr__(self, "primary", next(iter(self.labels)))
        _require(
            (self.primary is None) == (not self.labels) and (self.primary is None or self.primary in self.labels),
            f"track {self.id}: primary {self.primary!r} is not one of its labels {sorted(self.labels)}",
        )
        _require(self.split is None or self.split in SPLITS, f"track {self.id}: split {self.split!r} is not one of {', '.join(SPLITS)}")
        if not self.group:
            object.__setattr__(self, "group", self.id)


@dataclass(frozen=True)
class ChunkSpec:
    """How audio is cut: all in samples at `sample_rate` (Hz).

    Chunks of `length` start every `hop`; the last is aligned to the end of the track when more than `tail_min` samples
    are left uncovered; a track shorter than `length` is one chunk of its own length; one shorter than `minimum` is refused.
    """

    sample_rate: int = 24_000
    length: int = 120_080
    hop: int = 120_000
    tail_min: int = 12_000
    minimum: int = 24_000

    def __post_init__(self) -> None:
        _require(
            min(self.sample_rate, self.length, self.hop, self.minimum) > 0 and self.tail_min >= 0,
            f"chunk lengths must be positive: {asdict(self)}",
        )
        _require(self.minimum <= self.length, f"minimum {self.minimum} exceeds the chunk length {self.length}")


Unit = Literal["chunk", "window", "frame"]


@dataclass(frozen=True)
class PoolingSpec:
    """One pooling: `kind` names the function, `parameters` its settings (JSON values), `layers` are 1-based.

    A row of it belongs to one `unit` (a chunk, a window of joined chunks, or a frame) and has the shape
    `(len(layers), *shape)` with the axes `("layer", *axes)`.
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
        _require(
            len(self.layers) > 0 and list(self.layers) == sorted(set(self.layers)) and self.layers[0] >= 1,
            f"pooling {self.name!r}: layers must be distinct, ascending and 1-based, not {self.layers}",
        )
        _require(len(self.axes) == len(self.shape), f"pooling {self.name!r}: axes {self.axes} do not name the shape {self.shape}")

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row, `(layer, *axes)`."""
        return (len(self.layers), *self.shape)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the numbers of a feature, and nothing else. Its `fingerprint` names the store.

    `encoder` holds what decides the states besides the weights: the version of the encoder's code and every setting that it
    reads. `code` holds the versions of what is before and after it: decoding, the places of chunks. A spec of an earlier
    schema lacks both: its features were made before they were recorded, nobody can say by what, and its fingerprint is the
    one that it had. Versions of libraries and the device are provenance: they belong in commit records and run files.
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
                f"feature spec of schema {self.schema!r}; this version knows 1 to {SCHEMA_VERSION}", "Update beatmeter, or extract again."
            )
        for name, since in RECORDED.items():
            object.__setattr__(self, name, json.loads(canonical_json(dict(getattr(self, name)))))  # as it comes back from a file
            _require(since <= self.schema or not getattr(self, name), f"a feature spec of schema {self.schema} has no field {name!r}")
        names = [p.name for p in self.poolings]
        _require(len(names) > 0, "a FeatureSpec needs at least one pooling")
        _require(len(set(names)) == len(names), f"poolings named twice: {names}")
        for p in self.poolings:
            _require(p.layers[-1] <= self.n_layers, f"pooling {p.name!r} wants layer {p.layers[-1]}; {self.backbone} has {self.n_layers}")

    def __getitem__(self, pooling: str) -> PoolingSpec:
        for p in self.poolings:
            if p.name == pooling:
                return p
        raise SchemaError(f"no pooling {pooling!r} in these features", f"They hold: {', '.join(p.name for p in self.poolings)}.")

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
            return cls(**{**value, "chunk": ChunkSpec(**value["chunk"]), "poolings": tuple(PoolingSpec(**p) for p in value["poolings"])})
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
        """Raise FingerprintError naming every field in which `other` (found at `where`) differs from this spec."""
        if self.fingerprint != other.fingerprint:
            self._refuse(other.differences(self), where)

    def require_agreement(self, saved: FeatureSpec, where: str) -> None:
        """Raise FingerprintError as `require_same` does where the spec of a saved run, found at `where`, says something else.
        What was not recorded yet when the run was saved is not asked for."""
        if not self.agrees(saved):
            self._refuse(saved.differences(self.as_of(saved.schema)), where)

    def agrees(self, saved: FeatureSpec) -> bool:
        """Whether `saved`, perhaps of an earlier schema, describes these features as far as it says anything."""
        return self.as_of(saved.schema).fingerprint == saved.fingerprint

    def _refuse(self, lines: Sequence[str], where: str) -> NoReturn:
        raise FingerprintError(
            f"features in {where} were made another way (there != wanted): {'; '.join(lines[:6])}{' ...' if len(lines) > 6 else ''}",
            "Use another cache folder, or the settings that made these features.",
        )

    def as_of(self, schema: int) -> FeatureSpec:
        """This spec without the fields that an earlier `schema` did not record; the spec itself when it is no later."""
        if schema >= self.schema:
            return self
        empty: dict[str, Any] = {name: {} for name, since in RECORDED.items() if since > schema}
        return replace(self, schema=schema, **empty)

    def why_not(self, wanted: FeatureSpec) -> str:
        """In words, in what these features differ from the `wanted` ones (these != wanted), what was not recorded yet first."""
        later = [name for name, since in RECORDED.items() if self.schema < since <= wanted.schema]
        parts = [f"made before {' and '.join(later)} were recorded"] if later else []
        return "; ".join(parts + self.differences(wanted.as_of(self.schema))[:4])

    def covers(self, wanted: FeatureSpec) -> bool:
        """True when these features contain the wanted ones: all fields equal, poolings and layers a superset."""
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
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}" if prefix else name).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):  # poolings, by name
        return {k: v for item in value for k, v in _flat(item, f"{prefix}.{item['name']}").items()}
    return {prefix: value}


@dataclass(frozen=True)
class Pooled:
    """Rows of one pooling of one track: `values` (row, layer, *axes), `times` (row, 2) start and end in seconds,
    `frames` (row,) how many frames each row summarises."""

    values: Shaped[np.ndarray, "row ..."]
    times: Float[np.ndarray, "row 2"]
    frames: Int[np.ndarray, " row"]

    def __post_init__(self) -> None:
        n = len(self.values)
        _require(
            self.times.shape == (n, 2) and self.frames.shape == (n,), f"times {self.times.shape} or frames {self.frames.shape} do not match {n} rows"
        )


@dataclass(frozen=True)
class Features:
    """First waist: the features of one track, by pooling name, with the spec that made them. Whether the values can be
    kept (finite, in the range of the store's dtype) is checked by the store, which names track, pooling and layer."""

    spec: FeatureSpec
    samples: int  # length of the track at spec.chunk.sample_rate
    pooled: Mapping[str, Pooled]

    def __post_init__(self) -> None:
        wanted = {p.name for p in self.spec.poolings}
        _require(set(self.pooled) == wanted, f"features hold {sorted(self.pooled)}, the spec says {sorted(wanted)}")
        for name, rows in self.pooled.items():
            shape = self.spec[name].row_shape
            _require(rows.values.shape[1:] == shape, f"pooling {name!r} has rows of shape {rows.values.shape[1:]}, the spec says {shape}")


def label_table(tracks: Sequence[Track], classes: Sequence[str]) -> tuple[Float[np.ndarray, "track klass"], Int[np.ndarray, " track"]]:
    """Label weights, 0 for absent, and the index of each primary class, -1 without one. Raises DataError for a label that is
    none of `classes`."""
    at = {name: i for i, name in enumerate(classes)}
    targets, primary = np.zeros((len(tracks), len(at))), np.full(len(tracks), -1)
    for row, track in enumerate(tracks):
        foreign = [name for name in track.labels if name not in at]
        if foreign:
            raise DataError(f"track {track.id} has the label {foreign[0]!r}, the task knows {', '.join(classes)}", "See `beatmeter data check`.")
        for name, weight in track.labels.items():
            targets[row, at[name]] = weight
        if track.primary is not None:
            primary[row] = at[track.primary]
    return targets, primary


@dataclass(frozen=True)
class Predictions:
    """Second waist: what a model said of `n` items (tracks, or windows of tracks), for `c` classes. Numpy only.

    `targets` (item, class) hold label weights, 0 for absent; `scores` (item, class) are probabilities, one sigmoid
    per class; `primary` (item,) is the index of the primary class, -1 when unlabelled; `times` (item, 2) in seconds,
    nan for whole tracks. `groups` say what belongs together (song, tune, artist); `sources` where a clip came from.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    split: str
    targets: Float[np.ndarray, "item klass"]
    scores: Float[np.ndarray, "item klass"]
    primary: Int[np.ndarray, " item"]
    times: Float[np.ndarray, "item 2"]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("classes", "ids", "groups", "sources"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        n, c = len(self.ids), len(self.classes)
        _require(len(set(self.classes)) == c and c > 0, f"classes must be distinct: {self.classes}")
        _require(len(self.groups) == n and len(self.sources) == n, f"{n} ids, {len(self.groups)} groups, {len(self.sources)} sources")
        _require(self.targets.shape == (n, c), f"targets have shape {self.targets.shape}, not {(n, c)}")
        _require(self.scores.shape == (n, c), f"scores have shape {self.scores.shape}, not {(n, c)}")
        _require(
            self.primary.shape == (n,) and self.times.shape == (n, 2),
            f"primary {self.primary.shape} or times {self.times.shape} do not match {n} items",
        )
        if n:
            bad = ~np.isfinite(self.scores).all(axis=1) | (self.scores < 0).any(axis=1) | (self.scores > 1).any(axis=1)
            _require(not bad.any(), f"{int(bad.sum())} items have scores outside [0, 1], first {self.ids[int(bad.argmax())]!r}")
            _require(bool(((self.targets >= 0) & (self.targets <= 1)).all()), "targets are outside [0, 1]")
            _require(bool((self.primary >= -1).all() and (self.primary < c).all()), "primary is not an index of a class")
            labelled = self.primary >= 0
            said = self.targets[labelled, self.primary[labelled]] > 0
            _require(bool(said.all()), "the primary class of an item has no target weight")

    @classmethod
    def of_tracks(
        cls,
        tracks: Sequence[Track],
        classes: Sequence[str],
        scores: Float[np.ndarray, "item klass"],
        split: str,
        groups: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Predictions:
        """Scores of whole tracks, with their labels. `groups` stand in for those of the tracks. Raises as `label_table`."""
        targets, primary = label_table(tracks, classes)
        return cls(
            classes=tuple(classes),
            ids=tuple(t.id for t in tracks),
            groups=tuple(t.group for t in tracks) if groups is None else tuple(groups),
            sources=tuple(t.source for t in tracks),
            split=split,
            targets=targets,
            scores=scores,
            primary=primary,
            times=np.full((len(tracks), 2), np.nan),
            meta=meta or {},
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int] | Int[np.ndarray, " some"] | np.ndarray) -> Predictions:
        """The items at `index` (positions or a boolean mask), in that order."""
        at = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index, dtype=int)

        def pick(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(names[i] for i in at)

        return Predictions(
            classes=self.classes,
            ids=pick(self.ids),
            groups=pick(self.groups),
            sources=pick(self.sources),
            split=self.split,
            targets=self.targets[at],
            scores=self.scores[at],
            primary=self.primary[at],
            times=self.times[at],
            meta=self.meta,
        )


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnostic found: a verdict in words, the numbers behind it, and how serious it is."""

    name: str
    level: Literal["ok", "note", "warning"]
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.level in ("ok", "note", "warning"), f"finding {self.name!r}: unknown level {self.level!r}")
        canonical_json(dict(self.values))  # must be plain JSON
