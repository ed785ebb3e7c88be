"""The HuBERT encoder in plain torch: every layer's states to a visitor, nothing after the last wanted layer.

Modules and parameters are named as in the hub's checkpoints (and in transformers' `HubertModel`), so those
load as they are and adapters find `q_proj`, `v_proj` and the others by name. Left out on purpose: attention
masks (chunks of a batch have equal lengths), masking and layer drop (both belong to pre-training).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from beatmeter.features.backbones.base import Backbone, Identity, LayeredBackbone, Visit, normalised
from beatmeter.features.backbones.frontend import FeatureExtractor
from beatmeter.features.backbones.hubert_config import HubertConfig
from beatmeter.features.backbones.kernels import Dropout, Linear, attention, gelu, wide_convolution

if TYPE_CHECKING:
    from beatmeter.features.activations import BeatActivations
    from beatmeter.features.lag import LagPooling

VERSION = 1  # of the forward pass, part of every fingerprint: raise it when any number changes


class FeatureProjection(nn.Module):
    """Front-end channels to the width of the encoder."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        if config.feat_proj_layer_norm:
            self.layer_norm = nn.LayerNorm(config.conv_dim[-1], config.layer_norm_eps)
        self.projection = Linear(config.conv_dim[-1], config.hidden_size)
        self.dropout = Dropout(config.feat_proj_dropout)

    def forward(self, x: Float[Tensor, "chunk frame channel"]) -> Float[Tensor, "chunk frame dim"]:
        if hasattr(self, "layer_norm"):
            x = self.layer_norm(x)
        y: Tensor = self.dropout(self.projection(x))
        return y


class PositionalConvolution(nn.Module):
    """A wide grouped convolution over time that tells the encoder where frames lie.

    Checkpoints store its kernel as direction and length per tap (weight normalisation, in one of two
    spellings); the product is formed once, when they are loaded.
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        width, taps = config.hidden_size, config.num_conv_pos_embeddings
        self.conv = nn.Conv1d(
            width, width, taps, padding=taps // 2, groups=config.num_conv_pos_embedding_groups
        )
        self.register_load_state_dict_pre_hook(_fold_before_loading)  # type: ignore[no-untyped-call]

    def forward(self, x: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk frame dim"]:
        return gelu(wide_convolution(x, self.conv))


def fold_weight_norm(state: dict[str, Tensor], prefix: str) -> None:
    """weight = direction * length / |direction|, the norm over all but the tap axis (Salimans and Kingma
    2016).

    Replaces the two tensors of `state`, in either spelling, by their product. A plain weight stays, and so
    does a pair that was made along another axis: strict loading then names it.
    """
    for length, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        g, v = f"{prefix}conv.{length}", f"{prefix}conv.{direction}"
        if g in state and v in state and state[g].shape == (1, 1, *state[v].shape[2:]):
            a, b = state.pop(g).float(), state.pop(v)
            state[f"{prefix}conv.weight"] = (b.float() * (a / b.float().norm(dim=(0, 1), keepdim=True))).to(
                b.dtype
            )


def _fold_before_loading(_: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    fold_weight_norm(state, prefix)


class Attention(nn.Module):
    """Self-attention over all frames of a chunk."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.dropout = config.num_attention_heads, config.attention_dropout
        self.k_proj, self.v_proj = Linear(width, width), Linear(width, width)
        self.q_proj, self.out_proj = Linear(width, width), Linear(width, width)

    def forward(self, x: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk frame dim"]:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attention(q, k, v, self.dropout if self.training else 0.0)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y


class FeedForward(nn.Module):
    """Two linear maps with GELU between, per frame."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_dropout = Dropout(config.activation_dropout)
        self.output_dense = Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = Dropout(config.hidden_dropout)

    def forward(self, x: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk frame dim"]:
        y: Tensor = self.output_dropout(
            self.output_dense(self.intermediate_dropout(gelu(self.intermediate_dense(x))))
        )
        return y


class EncoderLayer(nn.Module):
    """One transformer layer: norms before attention and feed-forward (pre-LN), or after each residual sum
    (post-LN)."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = Attention(config)
        self.dropout = Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk frame dim"]:
        y: Tensor
        if self.pre_norm:
            y = x + self.dropout(self.attention(self.layer_norm(x)))
            return y + self.feed_forward(self.final_layer_norm(y))  # type: ignore[no-any-return]
        y = self.layer_norm(x + self.dropout(self.attention(x)))
        return self.final_layer_norm(y + self.feed_forward(y))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Positional convolution, one norm, the layers. The norm comes first (post-LN) or after the last layer
    (pre-LN)."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConvolution(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))


def _trains(modules: Iterable[nn.Module]) -> bool:
    """Whether anything in these modules trains."""
    return any(p.requires_grad for module in modules for p in module.parameters())


class Hubert(LayeredBackbone):
    """A HuBERT encoder as a backbone. The first convolution computes in float32, every other part in the
    dtype of its weights."""

    layer_prefix = "encoder.layers."
    resumes = True
    beats: Path | None = None  # the file of its activations of beats

    def __init__(self, config: HubertConfig, identity: Identity, sample_rate: int, normalise: bool) -> None:
        super().__init__()
        self.config, self.identity, self.sample_rate, self.normalise = (
            config,
            identity,
            sample_rate,
            normalise,
        )
        self.hop, self.span, self.dim, self.n_layers = (
            config.hop,
            config.span,
            config.hidden_size,
            config.num_hidden_layers,
        )
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)

    @property
    def settings(self) -> dict[str, Any]:
        return {"architecture": "hubert", "version": VERSION, **self.config.deciding()}

    @property
    def depth(self) -> int:
        return len(self.encoder.layers)

    def keep(self, depth: int) -> None:
        self._require_layer(depth)
        del self.encoder.layers[depth:]
        if self.config.do_stable_layer_norm and depth < self.n_layers:
            self.encoder.layer_norm = nn.Identity()  # type: ignore[assignment]  # belongs to the last layer alone

    def lag_pooling(self, longest: float = 7.5) -> LagPooling:
        from beatmeter.features.lag import projection_pooling

        rate = self.sample_rate / self.hop
        return projection_pooling(self.dim, rate, longest)

    def beat_activations(self) -> BeatActivations | None:
        from beatmeter.features.activations import BeatActivations

        return None if self.beats is None else BeatActivations.read(self.beats, self.dim)

    def top(self, n: int) -> list[nn.Module]:
        return [
            *self.encoder.layers[-n:],
            *([self.encoder.layer_norm] if self.config.do_stable_layer_norm else []),
        ]

    def forward(self, waves: Float[Tensor, "chunk sample"], visit: Visit, last: int | None = None) -> None:
        self._through(
            self._located(waves) if self._shared is None else self._shared(self._located, waves), visit, last
        )

    def frozen_layers(self) -> int | None:
        if _trains(self.below()):
            return None
        return next((i for i, layer in enumerate(self.encoder.layers) if _trains([layer])), self.depth)

    def drops_below(self, layers: int) -> bool:
        c = self.config
        inside = c.attention_dropout or c.activation_dropout if layers else 0.0
        return bool(c.feat_proj_dropout or c.hidden_dropout or inside)

    def below(self) -> list[nn.Module]:
        """What the first layer's input is made by."""
        norm = [] if self.config.do_stable_layer_norm else [self.encoder.layer_norm]
        return [self.feature_extractor, self.feature_projection, self.encoder.pos_conv_embed, *norm]

    def twin_of(self, other: Backbone) -> bool:
        """Whether both are frozen and equal below the first layer."""
        if (
            not isinstance(other, Hubert)
            or self.settings != other.settings
            or self.normalise != other.normalise
        ):
            return False
        ours, theirs = (
            [p for module in hubert.below() for p in module.parameters()] for hubert in (self, other)
        )
        return not any(p.requires_grad for p in (*ours, *theirs)) and all(
            p.dtype == q.dtype and p.device == q.device and torch.equal(p, q)
            for p, q in zip(ours, theirs, strict=True)
        )

    def share(self, other: Backbone) -> None:
        """Take everything below the first layer from `other`, and compute it once for the same tensor of
        waves."""
        assert isinstance(other, Hubert)
        self.feature_extractor, self.feature_projection = other.feature_extractor, other.feature_projection
        self.encoder.pos_conv_embed = other.encoder.pos_conv_embed
        if not self.config.do_stable_layer_norm:
            self.encoder.layer_norm = other.encoder.layer_norm
        super().share(other)

    def embed(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        """Front end: what the encoder takes, before positions are added."""
        self._require_waves(waves)
        waves = normalised(waves.float()) if self.normalise else waves.float()
        x = self.feature_extractor(waves)
        y: Tensor = self.feature_projection(x.to(self.feature_projection.projection.weight.dtype))
        return y

    def encode(
        self, embedded: Float[Tensor, "chunk frame dim"], visit: Visit, last: int | None = None
    ) -> None:
        """The layers: `visit(k, states)` for k = 1 ... `last` (default: all of the network's)."""
        self._through(self._locate(embedded), visit, last)

    def resume(
        self, states: Float[Tensor, "chunk frame dim"], visit: Visit, after: int, last: int | None = None
    ) -> None:
        self._through(states, visit, last, after)

    def _located(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        return self._locate(self.embed(waves))

    def _locate(self, embedded: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk frame dim"]:
        """Positions added: the input of the first layer."""
        encoder = self.encoder
        x = embedded + encoder.pos_conv_embed(embedded)
        y: Tensor = encoder.dropout(x if self.config.do_stable_layer_norm else encoder.layer_norm(x))
        return y

    def _through(
        self, x: Float[Tensor, "chunk frame dim"], visit: Visit, last: int | None, after: int = 0
    ) -> None:
        last = self.n_layers if last is None else last
        if last == 0:
            visit(0, x)
            return
        self._require_layer(last)
        pre_norm, encoder = self.config.do_stable_layer_norm, self.encoder
        for k, layer in enumerate(cast(Iterable[EncoderLayer], encoder.layers[after:last]), after + 1):
            x = x.to(
                layer.layer_norm.weight.dtype
            )  # layers that train may be in float32 above others in bfloat16
            again = self.checkpointing and torch.is_grad_enabled()
            x = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
            visit(k, encoder.layer_norm(x) if pre_norm and k == self.n_layers else x)
