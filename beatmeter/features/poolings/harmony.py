"""Harmony: magnitudes over pitch and time that another key or tempo only moves, and the pitch classes
themselves as frames for alignment. The arithmetic is `beatmeter.features.harmony`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.audio.chunking import row_edges
from beatmeter.errors import ConfigError, FingerprintError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.harmony import (
    CLASSES,
    FRAME_RATE,
    HARMONY_VERSION,
    LONGEST,
    PERIODS,
    SHORTEST,
    PitchClasses,
    averaged,
    modulations,
)
from beatmeter.features.poolings.base import Arrangement, Pooling, rows_fit
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig


class _OverClasses(Pooling):
    """What both poolings share: the front end of the backbone, which must be the one that the spec says."""

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        """Raises FingerprintError where this version makes other pitch classes of the backbone than the
        spec says."""
        super().__init__(spec, backbone)
        self.classes: PitchClasses | None = None if backbone is None else backbone.pitch_classes()
        if backbone is not None:
            made = _settings(backbone)
            if made != {name: spec.parameters.get(name) for name in made}:
                raise FingerprintError(
                    f"these features have harmony {dict(spec.parameters)}, this version makes {made}",
                    "Use another cache folder: the old features stay readable by the version that made them.",
                )


def _settings(backbone: Backbone) -> dict[str, Any]:
    return {
        "harmony_version": HARMONY_VERSION,
        "frame_rate": backbone.sample_rate / backbone.hop,
        **backbone.pitch_classes().settings,
    }


class Harmony(_OverClasses):
    """One row a window of joined chunks, (class, period): Fourier magnitudes over pitch and over periods
    that are even in log time."""

    kind = "harmony"
    tempo_axis = True
    joins = True

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        settings = {
            "window": config.window,
            "rate": FRAME_RATE,
            "shortest": SHORTEST,
            "longest": LONGEST,
            **_settings(backbone),
        }
        return PoolingSpec(
            name, cls.kind, "window", layers, ("pitch", "period"), (CLASSES, PERIODS), settings
        )

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row pitch period"]:
        joined = [
            torch.cat([states[c, s:] for c, s in zip(range(*w.chunks), w.skip, strict=True)])
            for w in arrangement.windows
        ]
        return torch.cat([self._row(sequence) for sequence in joined])

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer pitch period"]:
        return torch.stack(
            [
                torch.cat([self._row(states[layer][a - first : b - first]) for layer in self.spec.layers])
                for a, b in runs
            ]
        )

    def _row(self, sequence: Float[Tensor, "frame dim"]) -> Float[Tensor, "1 pitch period"]:
        assert self.classes is not None
        edges = row_edges(len(sequence), float(self.spec.parameters["frame_rate"]) / FRAME_RATE)
        return modulations(averaged(self.classes(sequence[None]), edges))

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.windows)


class Chroma(_OverClasses):
    """Twelve pitch classes several times a second, (class,): what alignment reads. Rows that the chunk
    before covers are left out."""

    kind = "chroma"
    per_track = False
    rate = FRAME_RATE

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        full = backbone.sample_rate / backbone.hop
        step = full / config.frame_rate
        if step < 1 or not rows_fit(step, full, backbone.chunk_seconds, config.overlap):
            hint = "Choose for instance 4, 3 or 2 Hz: whole rows in 5 s."
            raise ConfigError(
                f"pooling {name!r}: {config.frame_rate:g} Hz does not divide a 5-s chunk at {full:g} Hz", hint
            )
        return PoolingSpec(
            name, cls.kind, "frame", layers, ("class",), (CLASSES,), {"step": step, **_settings(backbone)}
        )

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row klass"]:
        assert self.classes is not None
        step = float(self.spec.parameters["step"])
        # chunk by chunk: the loudest bin of one must not move another
        rows = [
            averaged(self.classes(chunk[None]), kept.edges(step))[0]
            for chunk, kept in zip(states, arrangement.kept, strict=True)
        ]
        return torch.cat(rows)

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return sum(len(kept.edges(float(self.spec.parameters["step"]))) - 1 for kept in arrangement.kept)
