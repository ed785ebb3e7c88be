"""Audio encoders of `transformers` as backbones: their own classes and feature extractors, layer by layer.

Slower than our encoder of the HuBERT family, and exact by construction. Nothing of a checkpoint is executed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from beatmeter.errors import BackboneError
from beatmeter.features.backbones.base import Identity, LayeredBackbone, Visit, normalised
from beatmeter.features.backbones.checkpoint import digest_of, read_settings, weight_files
from beatmeter.features.backbones.families import Family, Geometry, Values, family_of

if TYPE_CHECKING:
    from beatmeter.features.lag import LagPooling

VERSION = 1  # of this adapter, part of every fingerprint: raise it when any number changes
LAG_RATE = 22.0  # Hz of frames, at least: the shortest lag is 0.09 s
# settings that decide nothing in evaluation mode
UNREAD = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map")
RANDOM = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False}  # of training: never done
REFUSED = {
    "add_adapter": "adds convolutions after the encoder",
    "use_intermediate_ffn_before_adapter": "adds a layer after the encoder",
}


class _Enough(Exception):  # noqa: N818  # nothing went wrong
    """The last wanted layer has been visited."""


class TransformersBackbone(LayeredBackbone):
    """An encoder of `transformers`: `network` is its own module, with its own parameter names.

    Layers before the last are taken as they leave their module, which is what `output_hidden_states` holds;
    the last one is the encoder's `last_hidden_state`.
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        at: Geometry,
        identity: Identity,
        about: Values,
        settings: Values,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.network, self.family, self.at, self.identity, self.normalise = (
            network,
            family,
            at,
            identity,
            normalise,
        )
        self.hop, self.span, self.dim, self.n_layers, self.chunk_seconds = (
            at.hop,
            at.span,
            at.dim,
            at.n_layers,
            at.seconds,
        )
        self.sample_rate = int(about["sampling_rate"])
        self.layer_prefix, self.own_projections = f"network.{family.layers}.", family.own_projections
        self._about, self._settings, self._now = dict(about), dict(settings), threading.local()
        front = getattr(network, "feature_extractor", None)
        if front is not None and hasattr(front, "_freeze_parameters"):
            front._freeze_parameters()  # else it keeps a graph although nothing in it trains
        for module in network.modules():
            if type(module).__name__ == "WavLMAttention":
                module.torch_multi_head_self_attention = partial(_through_projections, module)  # type: ignore[assignment]
        if not family.whole_only:
            for k, layer in enumerate(self._layers, 1):
                layer.forward = partial(self._tapped, k, layer.forward)

    @property
    def settings(self) -> dict[str, Any]:
        return {"architecture": f"transformers:{self.family.model}", "version": VERSION, **self._settings}

    @property
    def _layers(self) -> nn.ModuleList:
        layers = self.network.get_submodule(self.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def depth(self) -> int:
        return self.n_layers if self.family.whole_only else len(self._layers)

    def keep(self, depth: int) -> None:
        self._require_layer(depth)
        if not self.family.whole_only:
            del self._layers[depth:]

    def top(self, n: int) -> list[nn.Module]:
        norms = (
            [self.network.get_submodule(name) for name in self.family.norms]
            if self.depth == self.n_layers
            else []
        )
        return [*self._layers[-n:], *norms]

    def train(self, mode: bool = True) -> TransformersBackbone:
        """As in torch, but batch norms keep the statistics of the checkpoint: they belong to no adapter,
        and would be lost with it."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def lag_pooling(self, longest: float = 7.5) -> LagPooling:
        from beatmeter.features.lag import projection_pooling

        rate = self.sample_rate / self.hop
        if rate < LAG_RATE:
            raise BackboneError(
                f"the frames of {self.identity.name} come at {rate:.3g} Hz, too slow for lag "
                f"pooling (at least {LAG_RATE:g} Hz)",
                "Set features.poolings to stats or frames.",
            )
        return projection_pooling(self.dim, rate, longest)

    def forward(self, waves: Float[Tensor, "chunk sample"], visit: Visit, last: int | None = None) -> None:
        last = self.n_layers if last is None else last
        self._require_layer(last)
        self._require_waves(waves)
        count = self.frames(waves.shape[1])
        arguments = self._arguments(waves.float())

        def told(k: int, states: Tensor) -> None:
            found = self.family.states(states, self.at)[:, :count]
            if found.shape[1:] != (count, self.dim):
                raise BackboneError(
                    f"layer {k} of {self.identity.name} gives {tuple(states.shape)} for "
                    f"{waves.shape[1]} samples, not {count} frames of {self.dim}",
                    "This architecture changes its frame rate between layers, which is not supported.",
                )
            visit(k, found)

        self._now.visit, self._now.last = told, last
        try:
            with contextlib.suppress(_Enough):
                told(self.n_layers, self.network(**arguments).last_hidden_state)
        finally:
            del self._now.visit, self._now.last

    def _tapped(self, k: int, layer: Callable[..., Any], states: Tensor, *rest: Any, **options: Any) -> Any:
        """Layer `k`, whose states are visited; the network ends after the last one that is wanted."""
        weight = next(self._layers[k - 1].parameters())
        states = states.to(weight.dtype)  # layers that train may be in float32 above others in bfloat16
        if self.checkpointing and torch.is_grad_enabled():
            result = checkpoint(layer, states, *rest, use_reentrant=False, **options)
        else:
            result = layer(states, *rest, **options)
        if k < self.n_layers:
            self._now.visit(k, result[0] if isinstance(result, tuple) else result)
            if k == self._now.last:
                raise _Enough
        return result

    def _arguments(self, waves: Float[Tensor, "chunk sample"]) -> dict[str, Tensor]:
        """What the network is called with."""
        weight = next(self.network.parameters())
        if not self.family.extractor:
            return {"input_values": (normalised(waves) if self.normalise else waves).to(weight.dtype)}
        count = self.frames(waves.shape[1])
        whole = (
            waves[:, : self.span + (count - 1) * self.hop].cpu().numpy()
        )  # no part of a frame, which would be padded
        made = self._extractor(list(whole), sampling_rate=self.sample_rate, return_tensors="pt")
        arguments = {
            name: made[name].to(weight.device, weight.dtype)
            for name in ("input_features", "input_values")
            if name in made
        }
        if "is_longer" in made:  # CLAP's extractor calls one clip of a batch longer, at random
            arguments["is_longer"] = torch.zeros_like(made["is_longer"], device=weight.device)
        return arguments

    @cached_property
    def _extractor(self) -> Callable[..., Mapping[str, Tensor]]:
        import transformers

        kind = getattr(transformers, self.family.extractor)
        own = {
            k: v
            for k, v in self._about.items()
            if k not in ("feature_extractor_type", "processor_class", "return_attention_mask")
        }
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "At least one mel filter", UserWarning
            )  # AST was trained with such filters
            extractor: Callable[..., Mapping[str, Tensor]] = kind(**own)
        return extractor


def _through_projections(attention: Any, states: Tensor, _: object, bias: Tensor) -> tuple[Tensor, None]:
    """WavLM's attention with its projections called as modules: transformers reads their weights alone, and
    an adapter that is put around one of them would do nothing."""
    chunks, frames, _width = states.shape
    q, k, v = (
        project(states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = nn.functional.scaled_dot_product_attention(
        q,
        k,
        v,
        bias.view(chunks, attention.num_heads, frames, frames).to(q.dtype),
        attention.dropout if attention.training else 0.0,
    )
    y: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return y, None


@dataclasses.dataclass(frozen=True)
class TransformersCheckpoint:
    """A folder in the hub's format of an architecture in `families`, whose settings are read and whose
    weights are not."""

    folder: Path
    values: Values  # config.json
    about: Values  # preprocessor_config.json
    files: tuple[Path, ...]  # weights

    @classmethod
    def open(cls, folder: Path) -> TransformersCheckpoint:
        """Raises BackboneError for what is missing, damaged or not supported."""
        values, about = read_settings(folder)
        family = family_of(str(values.get("model_type")), str(folder / "config.json"))
        for name, meaning in REFUSED.items():
            if values.get(name):
                raise BackboneError(
                    f"{folder / 'config.json'}: {name} = {values[name]!r} {meaning}, which is not supported"
                )
        if family.extractor and "sampling_rate" not in about:
            raise BackboneError(
                f"{folder} has no preprocessor_config.json with a sampling_rate",
                f"Its network takes what a {family.extractor} makes: fetch that file too.",
            )
        return cls(folder, values, about, weight_files(folder))

    @property
    def model_type(self) -> str:
        return str(self.values["model_type"])

    @property
    def family(self) -> Family:
        return family_of(self.model_type, str(self.folder))

    @property
    def sample_rate(self) -> int | None:
        rate = self.about.get("sampling_rate")
        return rate if isinstance(rate, int) else None

    @property
    def normalise(self) -> bool:
        """What the preprocessor says; networks with a feature extractor of their own take what it makes."""
        return not self.family.extractor and bool(self.about.get("do_normalize", True))

    @property
    def sha256(self) -> str:
        return digest_of(self.files)

    def outline(self, identity: Identity, sample_rate: int, normalise: bool) -> TransformersBackbone:
        """The encoder without its weights: every attribute is there, `forward` is not possible."""
        with _unusable(self.folder), torch.device("meta"):
            return self._backbone(self._class()(self._config()), identity, sample_rate, normalise)

    def load(
        self,
        identity: Identity,
        sample_rate: int,
        normalise: bool,
        dtype: torch.dtype,
        depth: int | None = None,
    ) -> TransformersBackbone:
        """The encoder with these weights, frozen and in evaluation mode; layers after `depth` are not kept.

        Raises BackboneError for weights that are missing, of another shape, or not finite.
        """
        from transformers.utils import logging

        told, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with _unusable(self.folder):
                model, loading = self._class().from_pretrained(
                    self.folder,
                    config=self._config(),
                    dtype=dtype,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        finally:
            logging.set_verbosity(told)
            if bars:
                logging.enable_progress_bar()
        backbone = self._backbone(model, identity, sample_rate, normalise)
        own = {
            name
            for name, _ in model.named_parameters()
            if name.startswith(f"{self.family.part}.") or not self.family.part
        }
        lacking = sorted(own & {str(name) for name in loading["missing_keys"]} - {"masked_spec_embed"})
        wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading["mismatched_keys"])
        if lacking or wrong:
            what = (
                f"lacks {', '.join(lacking[:3])}"
                if lacking
                else f"does not fit its config.json: {', '.join(wrong[:3])}"
            )
            raise BackboneError(
                f"{self.folder / self.files[0].name} {what}",
                "The file is incomplete or belongs to another config.json: fetch the folder again.",
            )
        if depth is not None:
            backbone.keep(depth)
        for name, value in backbone.named_parameters():
            if not bool(value.sum(dtype=torch.float32).isfinite()):
                raise BackboneError(
                    f"{self.folder / self.files[0].name} has values that are not finite in {name}",
                    "Fetch the folder again.",
                )
        return backbone

    def _class(self) -> Any:
        import transformers

        return getattr(transformers, self.family.model)

    def _config(self) -> Any:
        from transformers import CONFIG_MAPPING

        config = CONFIG_MAPPING[self.model_type].from_dict(dict(self.values))
        for name, value in RANDOM.items():
            if hasattr(config, name):
                setattr(config, name, value)
        return config

    def _backbone(
        self, model: Any, identity: Identity, sample_rate: int, normalise: bool
    ) -> TransformersBackbone:
        if normalise and self.family.extractor:
            raise BackboneError(
                f"{identity.name} takes what its feature extractor makes, not normalised waves",
                "Leave features.normalise at auto.",
            )
        network = model.get_submodule(self.family.part) if self.family.part else model
        about = {**self.about, "sampling_rate": sample_rate}
        settings = {
            "config": {k: v for k, v in self.values.items() if k not in UNREAD},
            "preprocessor": about,
        }
        made = TransformersBackbone(
            network,
            self.family,
            self.family.geometry(model.config, about),
            identity,
            about,
            settings,
            normalise,
        )
        made.requires_grad_(False)
        return made.eval()


@contextlib.contextmanager
def _unusable(folder: Path) -> Iterator[None]:
    """Whatever transformers says of a folder that it cannot use, in one line. It raises errors of many
    libraries."""
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BackboneError(
            f"{folder} cannot be loaded: {first}",
            "The folder is incomplete or damaged, or its config.json is wrong.",
        ) from None
