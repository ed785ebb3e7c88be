"""The two graphs of an exported model as modules: `Front`, audio to states, and `Back`, states to an answer.

Both compute in portable operations (`beatmeter.features.portable`), so a test can compare them with the fast
code before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.calibration.maps import EDGE, ScoreMap
from beatmeter.features.pooling import Encoder
from beatmeter.features.poolings.lag import Lag
from beatmeter.features.poolings.stats import STATISTICS, Stats
from beatmeter.features.portable import portable
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.serving.evidence import evidence_of
from beatmeter.serving.scoring import RunScorer
from beatmeter.tasks.heads import Head
from beatmeter.tasks.meter import MeterTask

POOLINGS = ("lag", "stats")


def states_read(spec: FeatureSpec) -> tuple[int, ...]:
    """The layers whose states the poolings read, ascending."""
    return tuple(sorted({layer for p in spec.poolings for layer in p.layers}))


class Front(nn.Module):
    """Chunks of audio (chunk, sample) to the states that poolings read (chunk, layer, frame, dim)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = states_read(encoder.spec)

    def forward(self, audio: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk layer frame dim"]:
        with portable():
            found = self.encoder.states(audio)
            return torch.stack([found[layer] for layer in self.layers], dim=1)


class Back(nn.Module):
    """States of joined chunks to scores; see docs/export.md for inputs and outputs.

    Raises RunError for heads that read what these states do not give, and for tasks that answer in no
    classes.
    """

    def __init__(self, scorer: RunScorer, calibration: Calibration | None) -> None:
        super().__init__()
        encoder, task = scorer.encoder.encode, scorer.task
        if isinstance(task, MeterTask) and task.two_meters:
            raise RunError(
                "this model hears two meters by an output of its own, and what is exported by scores alone",
                "Export a model that was trained without task.two_meters.",
            )
        self.head = _explicit(scorer.head)
        spec = encoder.spec
        _require_exportable(spec, self.head, task.output.kind, task.output.resolution)
        names = cast(Head, self.head).poolings
        self.poolings = nn.ModuleList(p for p in encoder.poolings if cast(Lag, p).spec.name in names)
        layers = states_read(spec)
        self.specs: tuple[PoolingSpec, ...] = tuple(cast(Lag, p).spec for p in self.poolings)
        self.at = [[layers.index(layer) for layer in p.layers] for p in self.specs]
        self.sizes = [math.prod(p.row_shape) for p in self.specs]
        self.standardiser = scorer.standardise
        self.exclusive = task.output.kind == "multiclass"
        self.beside = task.width - len(task.output.names)  # outputs that no class has: groupings
        self.maps = tuple(calibration.maps) if calibration else ()
        self.presence = calibration.presence if calibration else None

    def forward(
        self,
        states: Float[Tensor, "layer frame dim"],
        first: Int[Tensor, " 1"],
        rows: Float[Tensor, " value"],
        frames: Float[Tensor, " 1"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        with portable(), torch.no_grad():
            n = states.shape[1]
            features, parts = {}, []
            for pooling, spec, at, before in zip(
                self.poolings, self.specs, self.at, torch.split(rows, self.sizes), strict=True
            ):
                own = states if len(at) == len(states) else states[at]
                row = _pool(pooling, own, first)
                row = _joined(spec, before.reshape(row.shape), frames, row, n)
                features[spec.name] = row[None]
                parts.append(row.flatten())
            head = cast(Head, self.head)
            hidden = head.hidden(self.standardiser(features))
            outputs = head.output(hidden)[0]
            outputs = outputs[: -self.beside] if self.beside else outputs
            scores = outputs.softmax(0) if self.exclusive else outputs.sigmoid()
            return (
                scores,
                calibrated(self.maps, outputs) if self.maps else scores + 0.0,
                self._heard(features, hidden),
                torch.cat(parts),
                frames + n,
            )

    def _heard(self, features: dict[str, Tensor], hidden: Tensor) -> Float[Tensor, " 1"]:
        if self.presence is None:
            return torch.ones_like(hidden[0, :1])
        lags = [p.name for p in self.specs if p.kind == "lag"]
        evidence = evidence_of(features, lags, hidden)[0].double()
        weights = torch.tensor(self.presence.weights, dtype=torch.float64)
        odds: Tensor = (evidence * weights).sum(0, keepdim=True) + self.presence.intercept
        return odds.sigmoid().float()


def calibrated(maps: Sequence[ScoreMap], outputs: Float[Tensor, " klass"]) -> Float[Tensor, " klass"]:
    """Calibrated probabilities from the outputs of a head, which are logits: a line on the logit kept in the
    range that calibration keeps it in, or a curve through points."""
    return torch.cat([_mapped(m, outputs[k : k + 1]) for k, m in enumerate(maps)])


def _mapped(score_map: ScoreMap, output: Float[Tensor, " 1"]) -> Float[Tensor, " 1"]:
    if score_map.kind == "none":
        return output.sigmoid()
    if score_map.kind == "isotonic":
        at, value = score_map.parameters["at"], score_map.parameters["value"]
        score, total = output.sigmoid(), torch.full_like(output, value[0])
        for a, b, low, high in zip(at, at[1:], value, value[1:], strict=False):
            if b > a:
                total = total + (score.clamp(a, b) - a) * ((high - low) / (b - a))
        return total
    edge = math.log(1 - EDGE) - math.log(EDGE)
    line: Tensor = score_map.parameters["slope"] * output.clamp(-edge, edge)
    return torch.sigmoid(line + score_map.parameters.get("intercept", 0.0))


def _pool(pooling: nn.Module, states: Float[Tensor, "layer frame dim"], first: Tensor) -> Tensor:
    """One row (layer, *axes) of a run of frames."""
    if isinstance(pooling, Lag):
        assert pooling.lag is not None
        found: Tensor = pooling.lag(states, first)
        return found
    statistics = cast(Stats, pooling).statistics
    return torch.stack([STATISTICS[name](states) for name in statistics], dim=1)


def _joined(spec: PoolingSpec, before: Tensor, frames: Tensor, row: Tensor, n: int) -> Tensor:
    """The rows of all windows as one, as `Pooling.aggregate` makes it, from those `before` and the newest."""
    share = n / (frames + n)
    mean = before * (1 - share) + row * share
    if spec.kind == "lag":
        return mean
    parts, statistics = [], tuple(spec.parameters["statistics"])
    for i, name in enumerate(statistics):
        old, new = before[:, i], row[:, i]
        if name == "mean":
            parts.append(mean[:, i])
        elif name == "max":
            parts.append(torch.where(frames > 0, torch.maximum(old, new), new))
        else:
            square = old**2 * (1 - share) + new**2 * share
            if "mean" in statistics:
                m = statistics.index("mean")
                square = square + (1 - share) * share * (before[:, m] - row[:, m]) ** 2
            parts.append(square.clamp_min(1e-12).sqrt())
    return torch.stack(parts, dim=1)


def _explicit(head: nn.Module) -> nn.Module:
    """A copy of the head whose convolutions say how much they pad: graphs know no padding of `same` beside a
    dilation."""
    copied = deepcopy(head)
    for module in copied.modules():
        if isinstance(module, nn.Conv1d) and module.padding == "same":
            reach = module.dilation[0] * (module.kernel_size[0] - 1)
            if reach % 2:
                raise RunError(
                    f"the head has a kernel of {module.kernel_size[0]}, which pads one side more than the "
                    "other",
                    "Export a head with odd kernels.",
                )
            module.padding = (reach // 2,)
    return copied


def _require_exportable(spec: FeatureSpec, head: nn.Module, kind: str, resolution: str) -> None:
    if resolution == "frame" or not isinstance(head, Head):
        raise RunError(
            "this model gives values over time, and what is exported gives one answer for a window",
            "Export a model of meter or of a column: see `beatmeter models`.",
        )
    if kind not in ("multilabel", "multiclass"):
        raise RunError(f"this model answers in {kind}s, not in classes", "Export a model of classes.")
    read = [spec[name] for name in head.poolings]
    odd = [p.name for p in read if p.kind not in POOLINGS]
    if odd:
        raise RunError(
            f"the head reads {', '.join(odd)}, and windows of joined states give lag and stats alone",
            "Export a head over lag or stats.",
        )
    if {p.kind for p in read} == {"lag", "stats"}:
        raise RunError(
            "the head reads lag, of joined chunks, beside stats, of single chunks: no window is both",
            "Export a head over one of them.",
        )
    if spec.chunk.grid:
        raise RunError("chunks of this model overlap", "Export a model with features.overlap = 0.")
