"""What pre-training asks of a backbone, all at once: frames that know beat, bar and pace, masked frames that
know the spectrum, and joined frames whose log-lag autocorrelation knows the meter; if wanted also frames that
know where chords change, where between two beats they lie and in which bar of a second meter, and the clip's
two meters and groupings by the same autocorrelation."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.features.activations import OUTPUTS, BeatActivations
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.spectral import log_mel
from beatmeter.features.pooling import feature_spec
from beatmeter.learning.pretraining.targets import (
    BAR_GROUPINGS,
    BAR_PERIODS,
    BEAT_PERIODS,
    COMPANIES,
    UNKNOWN,
)
from beatmeter.settings import FeatureConfig, HeadConfig, PretrainConfig
from beatmeter.tasks.heads import Head, draw_from
from beatmeter.tasks.losses import unbiased

MASK_LENGTH = 10  # frames
RARE = {"beat": 4.0, "downbeat": 12.0, "chord": 12.0, "second": 12.0}  # how much more a frame with one weighs
PERIOD_WEIGHT = 0.2  # a cross-entropy over 32 classes starts at 3.5, the other frame losses below 1


class Objective(nn.Module):
    """The backbone with everything that only pre-training needs. `forward` gives the losses by name, and of
    how many frames or clips each is the mean."""

    def __init__(self, backbone: Hubert, config: PretrainConfig, n_classes: int) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        d = backbone.dim
        self.frame_norm = nn.LayerNorm(d)
        self.frame = nn.Linear(d, 4 + len(BEAT_PERIODS) + len(BAR_PERIODS))
        self.spectrum = nn.Linear(d, config.mel_bands)
        self.mask_embedding = nn.Parameter(torch.randn(d) * 0.1)
        self.lag = backbone.lag_pooling(config.longest_lag)
        features = FeatureConfig(poolings=("lag",), window=config.chunks, longest_lag=config.longest_lag)
        spec, head = feature_spec(backbone, features, "float32"), HeadConfig(poolings=("lag",), dropout=0.1)
        self.meter = Head(spec, head, n_classes)
        # What may be left out comes last: without it, the first weights of the rest stay what they were.
        if config.chord_weight:
            self.chord = nn.Linear(d, 1)
        if config.company_weight:
            self.company = Head(spec, head, len(COMPANIES))
        if config.grouping_weight:
            self.grouping = Head(spec, head, len(BAR_GROUPINGS))
        if config.beat_phase_weight:
            self.beat_phase = nn.Linear(d, 2)
        if config.second_weight:
            self.second = nn.Linear(d, 3)
        self.heads = [part for part in self.children() if isinstance(part, Head)]
        self.reads_frames = bool(
            config.frame_weight or config.chord_weight or config.beat_phase_weight or config.second_weight
        )
        self.pools = bool(config.lag_weight or config.company_weight or config.grouping_weight)

    def forward(
        self,
        waves: Float[Tensor, "clip chunk sample"],
        known: dict[str, Tensor],
        frames: dict[str, Tensor],
        generator: torch.Generator,
        rows: tuple[slice, int] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of one batch; `known` holds `meters`, `companies` and `groupings` as in StreamBatch;
        `frames` as there, (clip, chunk * frame). `rows`: which clips of how many of the step these are; what
        is drawn is drawn for all of them."""
        clips, chunks, _ = waves.shape
        which, total = rows or (slice(0, clips), clips)
        for head in self.heads:
            draw_from(head, None, rows)
        embedded = self.backbone.embed(waves.flatten(0, 1))
        masked = self._mask((total * chunks, embedded.shape[1]), generator)
        masked = masked[which.start * chunks : which.stop * chunks].to(embedded.device)
        embedded = torch.where(masked[..., None], self.mask_embedding.to(embedded), embedded)
        lags: list[Tensor] = []
        top: list[Tensor] = []

        def visit(layer: int, states: Tensor) -> None:
            if self.pools:
                lags.append(self.lag(states.float().reshape(clips, -1, states.shape[2])))
            if layer == self.backbone.n_layers:
                top.append(states.float())

        self.backbone.encode(embedded, visit)
        losses: dict[str, Tensor] = {}
        of: dict[str, Tensor] = {}
        everything = torch.tensor(float(clips), device=waves.device)
        if self.reads_frames:
            heard = self.frame_norm(top[0]).reshape(clips, chunks * embedded.shape[1], -1)
            if self.config.frame_weight:
                losses |= self._frame_losses(self.frame(heard), frames)
                of["phase"] = frames["inside"].sum()
                of |= {name: _known(frames[name]) for name in ("beat_period", "bar_period")}
            if self.config.chord_weight:
                losses["chord"] = _events("chord", self.chord(heard)[..., 0], frames)
            if self.config.beat_phase_weight:
                losses["beat_phase"] = _turn(
                    self.beat_phase(heard), frames["beat_phase"], frames["beat_inside"]
                )
                of["beat_phase"] = frames["beat_inside"].sum()
            if self.config.second_weight:
                second = self.second(heard)
                losses["second"] = _events("second", second[..., 0], frames)
                losses["second_phase"] = _turn(
                    second[..., 1:], frames["second_phase"], frames["second_inside"]
                )
                of["second_phase"] = frames["second_inside"].sum()
        if self.config.mask_weight:
            losses["spectrum"] = self._spectrum_loss(top[0], masked, waves)
            of["spectrum"] = masked.sum()
        if self.pools:
            pooled = {"lag": torch.stack(lags, dim=1)}
        if self.config.lag_weight:
            meters = known["meters"]
            weight = torch.full((meters.shape[1],), float(meters.shape[1] - 1), device=meters.device)
            losses["meter"] = unbiased(self.meter(pooled), meters, weight, 0.05).mean()
        if self.config.company_weight:
            losses["company"] = _cross_entropy(self.company(pooled), known["companies"])
        if self.config.grouping_weight:
            losses["grouping"] = _cross_entropy(self.grouping(pooled), known["groupings"])
            of["grouping"] = _known(known["groupings"])
        return losses, {name: of.get(name, everything).float() for name in losses}

    def meters(self, waves: Float[Tensor, "clip chunk sample"]) -> Float[Tensor, "clip klass"]:
        """Logits of the clip's meter, without masks."""
        lags: list[Tensor] = []
        self.backbone(
            waves.flatten(0, 1),
            lambda layer, states: lags.append(
                self.lag(states.float().reshape(len(waves), -1, states.shape[2]))
            ),
        )
        return self.meter({"lag": torch.stack(lags, dim=1)})  # type: ignore[no-any-return]

    def beat_activations(self) -> BeatActivations | None:
        """What has learned beats, downbeats and the place between two beats from the top layer; None where no
        loss taught all of them."""
        if not (self.config.frame_weight and self.config.beat_phase_weight):
            return None
        linear = nn.Linear(self.frame.in_features, OUTPUTS)
        parts = zip(self.frame.parameters(), self.beat_phase.parameters(), strict=True)
        weight, bias = (torch.cat([frame[:2], place]) for frame, place in parts)
        linear.load_state_dict({"weight": weight, "bias": bias})
        return BeatActivations(deepcopy(self.frame_norm), linear)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        weights = {
            "spectrum": self.config.mask_weight,
            "meter": self.config.lag_weight,
            "chord": self.config.chord_weight,
            "company": self.config.company_weight,
            "grouping": self.config.grouping_weight,
            "beat_phase": self.config.beat_phase_weight,
            "second": self.config.second_weight,
            "second_phase": self.config.second_weight,
        }
        return torch.stack(
            [value * weights.get(name, self.config.frame_weight) for name, value in losses.items()]
        ).sum()

    def _mask(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Spans of MASK_LENGTH frames, (chunk, frame); a part of the chunks only, so that the others are
        heard whole."""
        chunks, frames = shape
        starts = torch.rand(chunks, frames, generator=generator) < self.config.mask_share / MASK_LENGTH
        chosen = torch.rand(chunks, 1, generator=generator) < self.config.mask_chunks
        spans = F.max_pool1d((starts & chosen).float()[:, None], MASK_LENGTH, 1, MASK_LENGTH // 2)[
            :, 0, :frames
        ]
        return spans > 0

    def _spectrum_loss(
        self,
        states: Float[Tensor, "chunk frame dim"],
        masked: Bool[Tensor, "chunk frame"],
        waves: Float[Tensor, "clip chunk sample"],
    ) -> Tensor:
        heard = self.spectrum(states)
        if not bool(masked.any()):
            return heard.sum() * 0  # type: ignore[no-any-return]
        mel = log_mel(waves.flatten(0, 1), self.backbone.sample_rate, self.config.mel_bands)
        mel = (mel - mel.mean(dim=(1, 2), keepdim=True)) / (mel.std(dim=(1, 2), keepdim=True) + 1e-3)
        return F.smooth_l1_loss(heard[masked], mel[masked])

    def _frame_losses(
        self, out: Float[Tensor, "clip frame out"], frames: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        beat, downbeat, phase = out[..., 0], out[..., 1], out[..., 2:4]
        beats, bars = out[..., 4 : 4 + len(BEAT_PERIODS)], out[..., 4 + len(BEAT_PERIODS) :]
        return {
            "beat": _events("beat", beat, frames),
            "downbeat": _events("downbeat", downbeat, frames),
            "phase": _turn(phase, frames["phase"], frames["inside"]),
            "beat_period": PERIOD_WEIGHT * _cross_entropy(beats, frames["beat_period"]),
            "bar_period": PERIOD_WEIGHT * _cross_entropy(bars, frames["bar_period"]),
        }


def _events(name: str, logits: Float[Tensor, "clip frame"], frames: dict[str, Tensor]) -> Tensor:
    return F.binary_cross_entropy_with_logits(
        logits, frames[name], pos_weight=torch.tensor(RARE[name], device=logits.device)
    )


def _turn(
    said: Float[Tensor, "clip frame 2"],
    phase: Float[Tensor, "clip frame 2"],
    inside: Float[Tensor, "clip frame"],
) -> Tensor:
    """How far the direction is from the phase, 0 to 2: the mean over frames that have one."""
    distance = 1 - F.cosine_similarity(said, phase, dim=-1)
    return (distance * inside).sum() / inside.sum().clamp_min(1)


def _known(classes: Tensor) -> Tensor:
    return (classes != UNKNOWN).sum()


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean over frames, or clips, with a known class, smoothed a little because neighbouring periods are
    nearly right."""
    if bool((classes == UNKNOWN).all()):
        return logits.sum() * 0
    return F.cross_entropy(
        logits.flatten(0, -2), classes.flatten(), ignore_index=UNKNOWN, label_smoothing=0.1
    )
