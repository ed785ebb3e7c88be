"""Poolings: layer states to the rows that a store keeps, and rows to one array per track. The only place that does either.

Extraction and end-to-end training call the same `Encoder`, so frozen and streamed features cannot drift apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.audio.chunking import CHUNKING_VERSION, Layout, Window
from beatmeter.audio.decode import DECODING_VERSION
from beatmeter.errors import ConfigError, FingerprintError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.lag import LagPooling
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
from beatmeter.settings import FeatureConfig

STATS_VERSION = 1
FRAMES_VERSION = 1


@dataclass(frozen=True)
class Arrangement:
    """How the chunks of a batch belong together: `windows` joins runs of chunks (positions in the batch) into
    sequences; `skips` says per chunk how many leading frames the chunk before it in its track covers already."""

    windows: tuple[Window, ...]
    skips: tuple[int, ...]

    @classmethod
    def of(cls, layout: Layout, chunks_per_window: int) -> Arrangement:
        """All chunks of one track."""
        return cls(tuple(layout.windows(chunks_per_window)), layout.skips)

    @classmethod
    def of_window(cls, layout: Layout, window: Window) -> Arrangement:
        """The chunks of one window of a track, numbered from 0."""
        first, last = window.chunks
        return cls((window.shifted(-first),), layout.skips[first:last])

    @classmethod
    def join(cls, parts: Sequence[Arrangement]) -> Arrangement:
        """Several arrangements one after the other in one batch."""
        windows: list[Window] = []
        skips: list[int] = []
        for part in parts:
            at = len(skips)
            windows += [w.shifted(at) for w in part.windows]
            skips += part.skips
        return cls(tuple(windows), tuple(skips))


Pool = Callable[[Tensor, Arrangement], Tensor]


def _stats(spec: PoolingSpec) -> Pool:
    """(chunk, frame, dim) -> (chunk, pool, dim): statistics over the frames of each chunk, in float32."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean(dim=1),
        "max": lambda x: x.amax(dim=1),
        "std": lambda x: x.var(dim=1, correction=0).clamp_min(1e-12).sqrt(),
    }
    chosen = [functions[name] for name in spec.parameters["statistics"]]

    def pool(states: Tensor, arrangement: Arrangement) -> Tensor:
        x = states.float()
        return torch.stack([f(x) for f in chosen], dim=1)

    return pool


def _frames(spec: PoolingSpec) -> Pool:
    """(chunk, frame, dim) -> (row, dim): means over `step` frames; bins that the chunk before covers are left out."""
    step = int(spec.parameters["step"])

    def pool(states: Tensor, arrangement: Arrangement) -> Tensor:
        x = states.float()
        full = x.shape[1] // step
        bins = x[:, : full * step].reshape(x.shape[0], full, step, x.shape[2]).mean(dim=2)
        if x.shape[1] % step:
            bins = torch.cat([bins, x[:, full * step :].mean(dim=1, keepdim=True)], dim=1)
        return torch.cat([chunk[skip // step :] for chunk, skip in zip(bins, arrangement.skips, strict=True)])

    return pool


def _lag(lag: nn.Module) -> Pool:
    """(chunk, frame, dim) -> (window, channel, lag): joins the chunks of each window, then log-lag autocorrelation."""

    def pool(states: Tensor, arrangement: Arrangement) -> Tensor:
        joined = [torch.cat([states[c, s:] for c, s in zip(range(*w.chunks), w.skip, strict=True)]) for w in arrangement.windows]
        result: list[Tensor | None] = [None] * len(joined)
        for length in {len(j) for j in joined}:  # equal lengths go through the FFT together
            at = [i for i, j in enumerate(joined) if len(j) == length]
            rows = lag(torch.stack([joined[i] for i in at]).float())
            for i, row in zip(at, rows, strict=True):
                result[i] = row
        return torch.stack([r for r in result if r is not None])

    return pool


class Encoder(nn.Module):
    """A backbone with poolings at its layers: audio chunks in, rows of every pooling out; no states are kept."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec) -> None:
        super().__init__()
        self.backbone, self.spec = backbone, spec
        self.lag: LagPooling | None = backbone.lag_pooling() if any(p.kind == "lag" for p in spec.poolings) else None
        self._pools: list[tuple[PoolingSpec, Pool]] = []
        for p in spec.poolings:
            if p.kind == "lag" and self.lag is not None and {"window": p.parameters["window"], **self.lag.settings} != dict(p.parameters):
                raise FingerprintError(
                    f"these features have lag pooling {dict(p.parameters)}, this version makes {self.lag.settings}",
                    "Use another cache folder: the old features stay readable by the version that made them.",
                )
        for p in spec.poolings:
            if p.kind == "stats":
                self._pools.append((p, _stats(p)))
            elif p.kind == "frames":
                self._pools.append((p, _frames(p)))
            else:
                assert self.lag is not None
                self._pools.append((p, _lag(self.lag)))

    def states(self, waves: Float[Tensor, "chunk sample"]) -> dict[int, Float[Tensor, "chunk frame dim"]]:
        """What the poolings read, by layer: to pool windows that overlap, each chunk is encoded once."""
        found: dict[int, Tensor] = {}
        wanted = {layer for p in self.spec.poolings for layer in p.layers}

        def visit(layer: int, states: Tensor) -> None:
            if layer in wanted:
                found[layer] = states

        self.backbone(waves, visit, last=self.spec.last_layer)
        return found

    def pool(self, states: Mapping[int, Float[Tensor, "frame dim"]], windows: Sequence[tuple[int, int]], first: int, chunk: int) -> dict[str, Tensor]:
        """One array (window, layer, *axes) of every pooling over runs of frames, half-open, of joined chunks.

        Frames are counted from the beginning of the track, `first` is the one that `states` begin with; a chunk has `chunk`.
        Rows are those of the parts of chunks that lie in a window, joined as those of a track are. Raises ConfigError for poolings of
        frames, which no head reads.
        """
        result: dict[str, Tensor] = {}
        for p in self.spec.poolings:
            if p.kind == "lag":
                assert self.lag is not None
                period, parts = self.lag.channels.period, [torch.empty(0)] * len(windows)
                for length, phase in sorted({(b - a, a % period) for a, b in windows}):
                    at = [i for i, (a, b) in enumerate(windows) if (b - a, a % period) == (length, phase)]
                    runs = [slice(windows[i][0] - first, windows[i][1] - first) for i in at]
                    rows = torch.stack([self.lag(torch.stack([states[layer][run] for run in runs]).float(), phase) for layer in p.layers], dim=1)
                    for i, row in zip(at, rows, strict=True):
                        parts[i] = row
                result[p.name] = torch.stack(parts)
            elif p.kind == "stats":
                result[p.name] = torch.stack([self._stats(p, states, a, b, first, chunk) for a, b in windows])
            else:
                raise ConfigError(f"pooling {p.name!r} gives {p.kind}, which windows are not joined of")
        return result

    def _stats(self, p: PoolingSpec, states: Mapping[int, Tensor], a: int, b: int, first: int, chunk: int) -> Tensor:
        """Statistics (layer, pool, dim) of the frames `a` to `b - 1`."""
        edges = [a, *range((a // chunk + 1) * chunk, b, chunk), b]
        pool = next(pool for q, pool in self._pools if q is p)
        rows = [
            torch.cat([pool(states[layer][None, i - first : j - first], Arrangement((), ())) for layer in p.layers])
            for i, j in itertools.pairwise(edges)
        ]
        frames = torch.tensor([j - i for i, j in itertools.pairwise(edges)], device=rows[0].device)
        return aggregate(p, torch.stack(rows), frames)

    def forward(self, waves: Float[Tensor, "chunk sample"], arrangement: Arrangement) -> dict[str, Tensor]:
        """Rows (row, layer, *axes) of every pooling, float32, in the order of the chunks or windows of the batch."""
        found: dict[str, list[Tensor]] = {p.name: [] for p in self.spec.poolings}

        def visit(layer: int, states: Tensor) -> None:
            for p, pool in self._pools:
                if layer in p.layers:
                    found[p.name].append(pool(states, arrangement))

        self.backbone(waves, visit, last=self.spec.last_layer)
        return {name: torch.stack(rows, dim=1) for name, rows in found.items()}


def aggregate(pooling: PoolingSpec, values: Float[Tensor, "*track row layer ..."], frames: Tensor) -> Tensor:
    """The rows of a track, (*track, row, layer, *axes), to one array (*track, layer, *axes); `frames` (*track, row).

    Means are weighted by frames, the maximum is of maxima, the deviation that of the pooled frames (E[std^2 + mean^2] -
    E[mean]^2). Lag rows and frame rows are averaged.
    """
    axes = len(pooling.shape)
    weight = (frames / frames.sum(dim=-1, keepdim=True)).to(values).reshape(*frames.shape, *[1] * (axes + 1))
    if pooling.kind != "stats":
        return (values * weight).sum(dim=-axes - 2)
    names = list(pooling.parameters["statistics"])
    parts = []
    for i, name in enumerate(names):
        part, w = values[..., i, :], weight[..., 0]
        if name == "max":
            parts.append(part.amax(dim=-3))
        elif name == "mean":
            parts.append((part * w).sum(dim=-3))
        elif "mean" in names:
            mean = values[..., names.index("mean"), :]
            total = (mean * w).sum(dim=-3)
            parts.append((((part**2 + mean**2) * w).sum(dim=-3) - total**2).clamp_min(1e-12).sqrt())
        else:
            parts.append((part**2 * w).sum(dim=-3).clamp_min(1e-12).sqrt())
    return torch.stack(parts, dim=-2)


class Aggregation:
    """`aggregate` of rows (row, layer, *axes) that come bit by bit: of many rows one is made now and then, so that memory stays
    flat. That changes nothing but roundings: means and deviations are weighted by frames, maxima are maxima of maxima."""

    most = 64  # rows that are held

    def __init__(self, pooling: PoolingSpec) -> None:
        self._pooling = pooling
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
        return aggregate(self._pooling, torch.cat(self._rows), torch.cat(self._frames))


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
    layers = parse_layers(config.layers, backbone.n_layers)
    poolings = []
    for kind in config.poolings:
        if kind == "stats":
            shape: tuple[int, ...] = (len(config.statistics), backbone.dim)
            settings = {"statistics": list(config.statistics), "version": STATS_VERSION}
            poolings.append(PoolingSpec("stats", "stats", "chunk", layers, ("pool", "dim"), shape, settings))
        elif kind == "lag":
            lag = backbone.lag_pooling()
            shape = (lag.n_channels, lag.n_lags)
            poolings.append(PoolingSpec("lag", "lag", "window", layers, ("channel", "lag"), shape, {"window": config.window, **lag.settings}))
        else:
            step = _frame_step(backbone, config.frame_rate)
            poolings.append(PoolingSpec("frames", "frames", "frame", layers, ("dim",), (backbone.dim,), {"step": step, "version": FRAMES_VERSION}))
    return FeatureSpec(
        backbone=backbone.identity.name,
        revision=backbone.identity.revision,
        weights=backbone.identity.weights,
        n_layers=backbone.n_layers,
        dim=backbone.dim,
        frame_hop=backbone.hop,
        frame_span=backbone.span,
        normalise=backbone.normalise,
        chunk=chunk_spec(backbone),
        poolings=tuple(poolings),
        compute_dtype=compute_dtype,
        encoder=backbone.settings,
        code={"decoding": DECODING_VERSION, "chunking": CHUNKING_VERSION},
    )


def chunk_spec(backbone: Backbone, seconds: float = 5.0) -> ChunkSpec:
    """Chunks whose frames follow each other without a gap: `seconds` of hops, plus the samples that the last frame needs."""
    hop = round(seconds * backbone.sample_rate / backbone.hop) * backbone.hop
    return ChunkSpec(
        sample_rate=backbone.sample_rate,
        length=hop + backbone.span - backbone.hop,
        hop=hop,
        tail_min=backbone.sample_rate // 2,
        minimum=backbone.sample_rate,
    )


def window_chunks(spec: FeatureSpec) -> int:
    """Chunks that must go through the backbone together: those of one lag window."""
    return max((int(p.parameters["window"]) for p in spec.poolings if p.unit == "window"), default=1)


def _frame_step(backbone: Backbone, rate: float) -> int:
    """Frames per bin for `rate` Hz; the rate must divide the backbone's frame rate so that bins do not cross chunks."""
    full = backbone.sample_rate / backbone.hop
    step = full / rate
    chunk = round(5.0 * full)
    if abs(step - round(step)) > 1e-9 or chunk % round(step):
        possible = [f"{full / s:g}" for s in range(1, chunk + 1) if chunk % s == 0 and (full / s) >= 1 and float(full / s).is_integer()]
        raise ConfigError(f"features.frame_rate = {rate:g} Hz does not divide a 5-s chunk at {full:g} Hz", f"Choose one of: {', '.join(possible)}.")
    return round(step)
