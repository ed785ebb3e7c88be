"""The encoder: audio chunks through a backbone to the rows of every pooling, and the spec of the features
that settings ask for.

Extraction and end-to-end training call the same `Encoder`, so frozen and streamed features cannot drift
apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.audio.chunking import CHUNKING_VERSION
from beatmeter.audio.decode import DECODING_VERSION
from beatmeter.errors import ConfigError
from beatmeter.features.backbones.base import Backbone, LayeredBackbone, Visit
from beatmeter.features.poolings import POOLINGS, Arrangement, Pooling, pooling_class, pooling_of
from beatmeter.features.poolings import states as kept
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
from beatmeter.settings import FeatureConfig


class Encoder(nn.Module):
    """A backbone with poolings at its layers: audio chunks in, rows of every pooling out; states
    are kept only until a pooling that reads layers together has its last one."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec) -> None:
        super().__init__()
        self.backbone, self.spec = backbone, spec
        self.poolings = nn.ModuleList(pooling_of(p, backbone) for p in spec.poolings)

    def _each(self) -> Iterator[Pooling]:
        return iter(cast(Iterable[Pooling], self.poolings))

    def states(self, waves: Float[Tensor, "chunk sample"]) -> dict[int, Float[Tensor, "chunk frame dim"]]:
        """What the poolings read, by layer: to pool windows that overlap, each chunk is encoded once."""
        found: dict[int, Tensor] = {}
        wanted = {layer for p in self.spec.poolings for layer in p.layers}

        def visit(layer: int, states: Tensor) -> None:
            if layer in wanted:
                found[layer] = states

        self.backbone(waves, visit, last=self.spec.last_layer)
        return found

    def pool(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        windows: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> dict[str, Tensor]:
        """One array (window, layer, *axes) of every pooling over runs of frames, half-open, of joined chunks.

        Frames are counted from the beginning of the track, `first` is the one that `states` begin with; a
        chunk has `chunk`. Rows are those of the parts of chunks that lie in a window, joined as those of a
        track are. Raises ConfigError for poolings of frames, which no head reads.
        """
        return {p.spec.name: p.pool_runs(states, windows, first, chunk) for p in self._each()}

    def forward(self, waves: Float[Tensor, "chunk sample"], arrangement: Arrangement) -> dict[str, Tensor]:
        """Rows (row, layer, *axes) of every pooling, float32, in the order of the chunks or windows of the
        batch."""
        found: dict[str, list[Tensor]] = {
            p.spec.name: [p(waves, arrangement)] if p.of_waves else [] for p in self._each()
        }
        read = (p.spec.layers[-1] for p in self._each() if not p.of_waves)
        self.backbone(waves, self._pooled(found, arrangement), last=max(read, default=1))
        return {name: torch.stack(rows, dim=1) for name, rows in found.items()}

    def resume(
        self,
        states: Float[Tensor, "chunk frame dim"],
        below: Mapping[str, Float[Tensor, "row layer ..."]],
        after: int,
        arrangement: Arrangement,
    ) -> dict[str, Tensor]:
        """What `forward` gives, from the states of the layer `after` (0: what the first layer takes) and the
        rows `below` of the poolings that read the audio or layers up to that one."""
        found: dict[str, list[Tensor]] = {p.spec.name: [] for p in self._each()}
        cast(LayeredBackbone, self.backbone).resume(
            states, self._pooled(found, arrangement), after, last=self.spec.last_layer
        )
        above = {name: [torch.stack(rows, dim=1)] for name, rows in found.items() if rows}
        return {
            name: torch.cat([*([below[name].float()] if name in below else []), *above.get(name, [])], dim=1)
            for name in found
        }

    def _pooled(self, found: dict[str, list[Tensor]], arrangement: Arrangement) -> Visit:
        """A visitor that adds to the rows `found` those of every layer that is visited. Poolings that read
        layers together wait for their last one."""
        waiting: dict[str, list[Tensor]] = {p.spec.name: [] for p in self._each() if p.together}

        def visit(layer: int, states: Tensor) -> None:
            for p in self._each():
                name = p.spec.name
                if layer not in p.spec.layers or p.of_waves:
                    continue
                if name not in waiting:
                    found[name].append(p(states, arrangement))
                    continue
                waiting[name].append(states)
                if layer == p.spec.layers[-1]:
                    found[name] += p(torch.stack(waiting.pop(name)), arrangement).unbind(1)

        return visit


class Aggregation:
    """`Pooling.aggregate` of rows (row, layer, *axes) that come bit by bit: of many rows one is made now and
    then, so that memory stays flat. That changes nothing but roundings: means and standard deviations are
    weighted by frames, maxima are maxima of maxima."""

    most = 64  # rows that are held

    def __init__(self, pooling: PoolingSpec) -> None:
        self._pooling = pooling_of(pooling)
        self._rows: list[Tensor] = []
        self._frames: list[Tensor] = []

    def add(self, values: Float[Tensor, "row layer ..."], frames: Tensor) -> None:
        """Some rows, and how many frames each summarises."""
        self._rows.append(values)
        self._frames.append(frames)
        if sum(map(len, self._rows)) > self.most:
            total = torch.cat(self._frames).sum()
            self._rows, self._frames = [self.result()[None]], [total[None]]

    def result(self) -> Float[Tensor, "layer ..."]:
        """All rows as one array (layer, *axes)."""
        return self._pooling.aggregate(torch.cat(self._rows), torch.cat(self._frames))


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """`all`, `3`, `1-6`, `3,5,7` or `1-3,9` as ascending 1-based layers of a network with `n_layers`."""
    if text.strip().lower() == "all":
        return tuple(range(1, n_layers + 1))
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise ConfigError(f"layers {text!r} cannot be read", "Write 'all', '3', '1-6' or '3,5,7'.") from None
    if not found or min(found) < 1 or max(found) > n_layers:
        raise ConfigError(f"layers {text!r} are outside this backbone's layers 1 to {n_layers}")
    return tuple(sorted(found))


def feature_spec(backbone: Backbone, config: FeatureConfig, compute_dtype: str) -> FeatureSpec:
    """The spec of the features that `config` asks of this backbone, computed in `compute_dtype`."""
    poolings = []
    for pooling in config.named_poolings:
        if hasattr(nn.ModuleDict, pooling.name):  # a head keeps its branches under these names
            raise ConfigError(f"a pooling cannot be called {pooling.name!r}", "Choose another name.")
        if config.overlap and POOLINGS[pooling.kind].joins:
            what = f"pooling {pooling.name!r} joins whole chunks, and features.overlap = {config.overlap:g}"
            hint = f"Leave {pooling.name} out of features.poolings, or set features.overlap=0."
            raise ConfigError(f"{what} lets chunks overlap", hint)
        layers = parse_layers(pooling.layers or config.layers, backbone.n_layers)
        rate = pooling.rate or POOLINGS[pooling.kind].rate
        own = config if rate is None else replace(config, frame_rate=rate)
        poolings.append(POOLINGS[pooling.kind].make_spec(pooling.name, backbone, layers, own))
    if config.states >= 0:
        poolings.append(_states(backbone, config))
    return FeatureSpec(
        backbone=backbone.identity.name,
        revision=backbone.identity.revision,
        weights=backbone.identity.weights,
        n_layers=backbone.n_layers,
        dim=backbone.dim,
        frame_hop=backbone.hop,
        frame_span=backbone.span,
        normalise=backbone.normalise,
        chunk=chunk_spec(backbone, overlap=config.overlap),
        poolings=tuple(poolings),
        compute_dtype=compute_dtype,
        store_dtype="float16" if config.states < 0 else kept.dtype_of(compute_dtype),
        encoder=backbone.settings,
        code={"decoding": DECODING_VERSION, "chunking": CHUNKING_VERSION},
    )


def _states(backbone: Backbone, config: FeatureConfig) -> PoolingSpec:
    """Of the layer `features.states`, which must leave one to train."""
    if not backbone.resumes or config.states >= backbone.n_layers:
        raise ConfigError(
            f"features.states = {config.states} is not possible: {backbone.identity.name} "
            + (f"has {backbone.n_layers} layers" if backbone.resumes else "cannot be entered half-way"),
            f"Write 0 to {backbone.n_layers - 1}." if backbone.resumes else "Leave it at -1.",
        )
    return kept.States.make_spec(kept.NAME, backbone, (config.states,), config)


def chunk_spec(backbone: Backbone, overlap: float = 0.0) -> ChunkSpec:
    """Chunks whose frames follow each other without a gap: as many hops as the backbone takes at a time, plus
    the samples that the last frame needs. With an `overlap` (seconds, rounded to frames) neighbours share
    frames, and no more than a
    frame at the end of a track is left over."""
    whole, shared = (
        round(s * backbone.sample_rate / backbone.hop) * backbone.hop
        for s in (backbone.chunk_seconds, overlap)
    )
    return ChunkSpec(
        sample_rate=backbone.sample_rate,
        length=whole + backbone.span - backbone.hop,
        hop=whole - shared,
        tail_min=backbone.hop if shared else backbone.sample_rate // 2,
        minimum=backbone.sample_rate,
        grid=backbone.hop if shared else 0,
    )


def window_chunks(spec: FeatureSpec) -> int:
    """Chunks that must go through the backbone together: those of one lag window."""
    return max((int(p.parameters["window"]) for p in spec.poolings if pooling_class(p).joins), default=1)
