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
from beatmeter.evaluation.calibration.maps import EDGE, ScoreMap
from beatmeter.features.pooling import Encoder, window_chunks
from beatmeter.features.poolings import Pooling, pooling_class
from beatmeter.features.poolings.lag import Lag
from beatmeter.features.poolings.rhythm import Rhythm
from beatmeter.features.poolings.stats import STATISTICS, Stats
from beatmeter.features.portable import portable
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.serving.evidence import evidence_of
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import EnsembleScorer, RunScorer
from beatmeter.tasks.heads import Head
from beatmeter.tasks.meter import MeterTask

POOLINGS = ("lag", "rhythm", "stats")


def states_read(spec: FeatureSpec, poolings: Sequence[str]) -> tuple[int, ...]:
    """The layers whose states these poolings read, ascending."""
    return tuple(sorted({layer for name in poolings for layer in spec[name].layers}))


def members_of(predictor: Predictor) -> tuple[Member, ...]:
    """The runs that hear, ready for graphs. Raises RunError for what graphs cannot hold, see `Member`, and
    for members of an ensemble that hear other chunks or windows than the first."""
    members = {name: Member(run) for name, run in predictor.scorer.members.items()}
    kinds = {
        (m.spec.chunk, m.spec.frame_hop, m.spec.frame_span, window_chunks(m.spec)) for m in members.values()
    }
    if len(kinds) > 1:
        raise RunError(
            f"the members of this ensemble ({', '.join(members)}) hear chunks or windows of other lengths",
            "Export them one by one.",
        )
    return tuple(members.values())


class Front(nn.Module):
    """Chunks of audio (chunk, sample) to the states that heads read (chunk, layer, frame, dim); of several
    members the states lie side by side, as one layer whose `dim` has all of them."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(member.encoder for member in members)
        self.layers = [member.layers for member in members]

    def forward(self, audio: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk layer frame dim"]:
        with portable():
            parts = []
            for encoder, layers in zip(self.encoders, self.layers, strict=True):
                found = cast(Encoder, encoder).states(audio)
                parts.append(torch.stack([found[layer] for layer in layers], dim=1))
            if len(parts) == 1:
                return parts[0]
            return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=2)[:, None]


class Member(nn.Module):
    """One run: its encoder, and what makes outputs of states: poolings, standardiser and head.

    Raises RunError for heads that read what states of joined chunks do not give, and for tasks that answer in
    no classes.
    """

    def __init__(self, run: RunScorer) -> None:
        super().__init__()
        self._encoder = (run.encoder.encode,)  # no part of this module: the graph of the back has none of it
        if isinstance(run.task, MeterTask) and run.task.two_meters:
            raise RunError(
                "this model hears two meters by an output of its own, and what is exported by scores alone",
                "Export a model that was trained without task.two_meters.",
            )
        self.task, self.head = run.task, explicit(run.head)
        _require_exportable(self.encoder.spec, self.head, self.task.output.kind, self.task.output.resolution)
        names = cast(Head, self.head).poolings
        self.spec = self.encoder.spec.only(names)
        self.layers = states_read(self.spec, names)
        self.poolings = nn.ModuleList(p for p in self.encoder.poolings if cast(Pooling, p).spec.name in names)
        self.specs: tuple[PoolingSpec, ...] = tuple(cast(Pooling, p).spec for p in self.poolings)
        self.at = [[self.layers.index(layer) for layer in p.layers] for p in self.specs]
        self.sizes = [math.prod(p.row_shape) for p in self.specs]
        self.standardiser = run.standardise
        self.exclusive = self.task.output.kind == "multiclass"
        self.beside = self.task.width - len(self.task.output.names)  # outputs that no class has: groupings

    @property
    def encoder(self) -> Encoder:
        """The backbone with its poolings."""
        return self._encoder[0]

    def forward(
        self,
        states: Float[Tensor, "layer frame dim"],
        first: Int[Tensor, " 1"],
        rows: Float[Tensor, " value"],
        frames: Float[Tensor, " 1"],
    ) -> tuple[Float[Tensor, " klass"], Float[Tensor, " evidence"], Float[Tensor, " value"]]:
        """Outputs of the head, the evidence for a meter, and the rows of all windows so far."""
        features, parts = {}, []
        for pooling, spec, at, before in zip(
            self.poolings, self.specs, self.at, torch.split(rows, self.sizes), strict=True
        ):
            own = states if len(at) == len(states) else states[at]
            row = _pool(pooling, own, first)
            row = _joined(spec, before.reshape(row.shape), frames, row, states.shape[1])
            features[spec.name] = row[None]
            parts.append(row.flatten())
        head = cast(Head, self.head)
        hidden = head.hidden(self.standardiser(features))
        outputs = head.output(hidden)[0]
        lags = [p.name for p in self.specs if p.axes == ("channel", "lag")]
        evidence = evidence_of(features, lags, hidden)[0]
        return outputs[: -self.beside] if self.beside else outputs, evidence, torch.cat(parts)


class Back(nn.Module):
    """States of joined chunks to scores; see docs/export.md for inputs and outputs."""

    def __init__(self, members: Sequence[Member], predictor: Predictor) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mixture = Mixture(predictor.scorer) if isinstance(predictor.scorer, EnsembleScorer) else None
        calibration = predictor.judge.calibration
        self.maps = tuple(calibration.maps) if calibration else ()
        self.presence = calibration.presence if calibration else None
        self.shapes = [(len(member.layers), member.spec.dim) for member in members]
        self.sizes = [sum(member.sizes) for member in members]

    @property
    def states(self) -> tuple[int, int]:
        """Layers and dimensions of the states that it takes."""
        return (
            self.shapes[0] if len(self.shapes) == 1 else (1, sum(math.prod(shape) for shape in self.shapes))
        )

    def forward(
        self,
        states: Float[Tensor, "layer frame dim"],
        first: Int[Tensor, " 1"],
        rows: Float[Tensor, " value"],
        frames: Float[Tensor, " 1"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        with portable(), torch.no_grad():
            outputs, evidence, made = zip(
                *(
                    member(own, first, before, frames)
                    for member, own, before in zip(
                        self.members, self._split(states), torch.split(rows, self.sizes), strict=True
                    )
                ),
                strict=True,
            )
            if self.mixture is not None:
                scores = self.mixture(outputs)
                logits = logit_of(scores)
            elif cast(Member, self.members[0]).exclusive:
                scores = outputs[0].softmax(0)
                logits = logit_of(scores)
            else:
                scores, logits = outputs[0].sigmoid(), outputs[0]
            return (
                scores.float() + 0.0,
                calibrated(self.maps, logits).float() if self.maps else scores.float() + 0.0,
                self._heard(torch.cat(evidence)),
                torch.cat(made),
                frames + states.shape[1],
            )

    def _split(self, states: Float[Tensor, "layer frame dim"]) -> list[Float[Tensor, "layer frame dim"]]:
        """The states of every member, as its poolings read them."""
        if len(self.shapes) == 1:
            return [states]
        parts = torch.split(states[0], [math.prod(shape) for shape in self.shapes], dim=1)
        return [
            part.reshape(part.shape[0], *shape).transpose(0, 1)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def _heard(self, evidence: Float[Tensor, " value"]) -> Float[Tensor, " 1"]:
        if self.presence is None:
            return torch.ones_like(evidence[:1])
        if evidence.shape[0] != len(self.presence.weights):
            raise RunError(
                f"the calibration tells meter from none by {len(self.presence.weights)} numbers, and the "
                f"head gives {evidence.shape[0]}",
                "Train with the poolings of the head alone, and calibrate again.",
            )
        weights = torch.tensor(self.presence.weights, dtype=torch.float64)
        odds: Tensor = (evidence.double() * weights).sum(0, keepdim=True) + self.presence.intercept
        return odds.sigmoid().float()


class Mixture(nn.Module):
    """The outputs of the members of an ensemble to its scores, as `EnsembleScorer.join` makes them, in
    float64."""

    def __init__(self, scorer: EnsembleScorer) -> None:
        super().__init__()
        self.ensemble, self.names = scorer.ensemble, tuple(scorer.members)
        self.maps = [scorer.calibrations[n].maps if n in scorer.calibrations else () for n in self.names]

    def forward(self, outputs: Sequence[Float[Tensor, " klass"]]) -> Float[Tensor, " klass"]:
        members = [
            calibrated(maps, own.double()) if maps else own.double().sigmoid()
            for maps, own in zip(self.maps, outputs, strict=True)
        ]
        ensemble = self.ensemble
        if ensemble.method == "mean":
            total = sum(ensemble.weights[name] for name in ensemble.members)
            return torch.stack(
                [p * (ensemble.weights[name] / total) for name, p in zip(self.names, members, strict=True)]
            ).sum(0)
        table = torch.tensor(
            [
                [ensemble.coefficients[c][name] for c in ensemble.classes]
                for name in ("intercept", *self.names)
            ],
            dtype=torch.float64,
        )
        parts = [logit_of(p) * table[1 + i] for i, p in enumerate(members)]
        return (torch.stack(parts).sum(0) + table[0]).sigmoid()


def logit_of(scores: Float[Tensor, " klass"]) -> Float[Tensor, " klass"]:
    """`beatmeter.evaluation.calibration.maps.logit`, float64."""
    p = scores.double().clamp(EDGE, 1 - EDGE)
    return p.log() - (1 - p).log()


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
            share = (score.clamp(a, b) - a) / (b - a) if b > a else score >= a  # where a = b the curve jumps
            total = total + share * (high - low)
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
    if isinstance(pooling, Rhythm):
        assert pooling.rhythm is not None
        straight: Tensor = pooling.rhythm(states, first)
        return straight
    statistics = cast(Stats, pooling).statistics
    return torch.stack([STATISTICS[name](states) for name in statistics], dim=1)


def _joined(spec: PoolingSpec, before: Tensor, frames: Tensor, row: Tensor, n: int) -> Tensor:
    """The rows of all windows as one, as `Pooling.aggregate` makes it, from those `before` and the newest."""
    share = n / (frames + n)
    mean = before * (1 - share) + row * share
    if spec.kind != "stats":
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


def explicit(head: nn.Module) -> nn.Module:
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
    odd = [p.name for p in read if p.kind not in POOLINGS or p.parameters.get("pairs")]
    if odd:
        raise RunError(
            f"the head reads {', '.join(odd)}, and windows of joined states give lag, rhythm without pairs "
            "of channels, and stats alone",
            "Export a head over one of them.",
        )
    if len({pooling_class(p).joins for p in read}) > 1:
        raise RunError(
            "the head reads stats, of single chunks, beside what is of joined chunks: no window is both",
            "Export a head over one of them.",
        )
    if spec.chunk.grid:
        raise RunError("chunks of this model overlap", "Export a model with features.overlap = 0.")
