"""How a backbone moves: LoRA, its last layers, or all of it. What trains is always in float32, above a base
in any dtype.

The front end never trains with LoRA or last layers: it holds little that is specific to a task, and it would
double the memory of a step. LoRA is put in by peft; a trained one is read back without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.errors import BackboneError, nearest
from beatmeter.features.backbones.base import Backbone, LayeredBackbone
from beatmeter.settings import AdapterConfig

A, B = ".lora_A", ".lora_B"  # suffixes of the two factors in an adapter's state: (r, in) and (out, r)


class LowRank(nn.Module):
    """A linear map with a trained low-rank update beside it: base(x) + scale * x A' B' (Hu et al. 2021)."""

    def __init__(
        self, base_layer: nn.Linear, a: Float[Tensor, "r taken"], b: Float[Tensor, "given r"], scale: float
    ) -> None:
        super().__init__()
        self.base_layer, self.scale = base_layer, scale
        self.a, self.b = nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)

    def forward(self, x: Float[Tensor, "*rows taken"]) -> Float[Tensor, "*rows given"]:
        y: Tensor = self.base_layer(x)
        return y + (x.to(self.a.dtype) @ self.a.t() @ self.b.t() * self.scale).to(y.dtype)


def attach(backbone: Backbone, config: AdapterConfig) -> list[nn.Parameter]:
    """Make `backbone` trainable as `config` says; the parameters that train, in a fixed order.

    New LoRA factors are drawn from PyTorch's global generator and change nothing before their first step.
    Drop the layers that no feature needs first (`LayeredBackbone.keep`): last layers are counted from the
    deepest one held. Raises BackboneError for a backbone without weights, one that has an adapter already,
    and unknown targets.
    """
    network = _layered(backbone)
    if any(True for _ in _updated(network)):
        raise BackboneError(
            f"{backbone.identity.name} has an adapter already",
            "Load the backbone again, or merge the first adapter.",
        )
    network.requires_grad_(False)
    network.checkpointing = config.checkpointing == "yes"  # on "auto" whoever knows the batches decides
    if config.kind == "lora":
        _inject(network, config)
    else:
        for module in _top(network, "layers", config) if config.kind == "last_layers" else [network]:
            module.float().requires_grad_(True)
    network.train(network.training)  # new modules take the mode of the others
    return [p for _, p in _trained(network)]


def adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    """What trains, by name: the factors of LoRA as `<linear>.lora_A` and `.lora_B`, or the plain weights.
    Detached, not copied."""
    return {name: p.detach() for name, p in _trained(_layered(backbone))}


def load_adapter_state(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Put back what `adapter_state` gave, into a backbone with the same adapter attached: to go on
    training."""
    own = dict(_trained(_layered(backbone)))
    _require_same(
        {n: tuple(p.shape) for n, p in own.items()}, {n: tuple(v.shape) for n, v in state.items()}, backbone
    )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def load_merged(backbone: Backbone, config: AdapterConfig, state: Mapping[str, Tensor]) -> None:
    """Apply a trained adapter to a plain backbone, to predict with: no peft, nothing trains. An empty `state`
    changes nothing.

    LoRA is added into weights in float32; beside weights in bfloat16, where a sum would lose the small update
    to rounding.
    """
    if not state:
        return
    network = _layered(backbone)
    if config.kind != "lora":
        parameters = dict(network.named_parameters())
        own = {n: tuple(parameters[n].shape) for n in state if n in parameters}
        _require_same(own, {n: tuple(v.shape) for n, v in state.items()}, backbone)
        for name, value in state.items():
            module, _, leaf = name.rpartition(".")
            setattr(
                network.get_submodule(module),
                leaf,
                nn.Parameter(
                    value.to(parameters[name].device, torch.float32, copy=True), requires_grad=False
                ),
            )
        return
    linears = dict(_linears(network))
    names = sorted({n.removesuffix(A).removesuffix(B) for n in state})
    rank = state[names[0] + A].shape[0] if names[0] + A in state else config.r
    own = {
        f"{n}{s}": shape
        for n in names
        if n in linears
        for s, shape in _factor_shapes(linears[n], rank).items()
    }
    _require_same(own, {n: tuple(v.shape) for n, v in state.items()}, backbone)
    for name in names:
        base = linears[name]
        a, b = (state[name + suffix].to(base.weight.device, torch.float32) for suffix in (A, B))
        network.set_submodule(name, LowRank(base, a, b, config.alpha / rank))
    if all(linears[name].weight.dtype == torch.float32 for name in names):
        merge(network)


def merge(backbone: Backbone) -> None:
    """Add every low-rank update into its weight, W + scale * B A in float32, and take the adapter's
    modules away."""
    network = _layered(backbone)
    for name, wrapper in list(_updated(network)):
        base = cast(nn.Linear, wrapper.base_layer)
        a, b, scale = _factors(wrapper)
        with torch.no_grad():
            base.weight.copy_(base.weight.float() + scale * (b.float() @ a.float()))
        network.set_submodule(name, base)
    vars(network).pop("peft_config", None)
    network.requires_grad_(False)


def _layered(backbone: Backbone) -> LayeredBackbone:
    if not isinstance(backbone, LayeredBackbone):
        raise BackboneError(
            f"the {backbone.identity.name} backbone has no weights to adapt",
            "Train with --frozen, or take another backbone.",
        )
    return backbone


def _top(network: LayeredBackbone, setting: str, config: AdapterConfig) -> list[nn.Module]:
    """The last layers, as many as `adapter.<setting>` says. Raises BackboneError when fewer are held."""
    n = int(getattr(config, setting))
    if n > network.depth:
        raise BackboneError(
            f"the last {n} layers of {network.identity.name} were asked for, it holds {network.depth}",
            f"Set adapter.{setting} to 1 ... {network.depth}.",
        )
    return network.top(n)


def _linears(network: LayeredBackbone) -> Iterator[tuple[str, nn.Linear]]:
    """Linear maps of the encoder's layers, by full name."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(network.layer_prefix):
            yield name, module


def _inject(network: LayeredBackbone, config: AdapterConfig) -> None:
    known = sorted({name.rpartition(".")[2] for name, _ in _linears(network)})
    targets = [network.own_projections.get(target, target) for target in config.targets]
    for target in targets:
        if target not in known:
            raise BackboneError(
                f"adapter.targets: {network.identity.name} has no linear map {target!r}",
                f"{nearest(target, known)} All: {', '.join(known)}.",
            )
    from peft import LoraConfig, inject_adapter_in_model

    allowed = None
    if config.lora_layers:
        layers = _top(network, "lora_layers", config)
        allowed = {id(module) for layer in layers for module in layer.modules()}
    names = [
        name
        for name, linear in _linears(network)
        if name.rpartition(".")[2] in targets and (allowed is None or id(linear) in allowed)
    ]
    lora = LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names, task_type=None
    )
    inject_adapter_in_model(lora, network)
    network.requires_grad_(False)
    for _, wrapper in _updated(network):
        for factor in _factors(wrapper)[:2]:
            factor.data = factor.data.float()
            factor.requires_grad_(True)


def _updated(network: LayeredBackbone) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a low-rank update, by full name: peft's or ours. Both keep the linear map as
    `base_layer`."""
    for name, module in network.named_modules():
        if hasattr(module, "base_layer"):
            yield name, module


def _factors(wrapper: nn.Module) -> tuple[nn.Parameter, nn.Parameter, float]:
    """A (r, in), B (out, r) and the scale of one update."""
    if isinstance(wrapper, LowRank):
        return wrapper.a, wrapper.b, wrapper.scale
    a, b, scaling = wrapper.lora_A, wrapper.lora_B, cast(dict[str, float], wrapper.scaling)
    return a["default"].weight, b["default"].weight, scaling["default"]  # type: ignore[index, union-attr]


def _factor_shapes(linear: nn.Linear, rank: int) -> dict[str, tuple[int, int]]:
    return {A: (rank, linear.in_features), B: (linear.out_features, rank)}


def _trained(network: LayeredBackbone) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that train, under the names of `adapter_state`."""
    low_rank: dict[int, str] = {}
    for name, wrapper in _updated(network):
        a, b, _ = _factors(wrapper)
        low_rank |= {id(a): name + A, id(b): name + B}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            yield low_rank.get(id(parameter), name), parameter


def _require_same(
    own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], backbone: Backbone
) -> None:
    different = sorted(n for n in own.keys() | given.keys() if own.get(n) != given.get(n))
    if different:
        first = different[0]
        raise BackboneError(
            f"the saved adapter does not fit {backbone.identity.name}: {len(different)} tensors differ, "
            f"first {first}"
            f" (saved {given.get(first, 'absent')}, here {own.get(first, 'absent')})",
            "Load it with the backbone and adapter settings of its run.",
        )
