"""Adapters: nothing changes before the first step, only what should train gets gradients, a trained one
predicts without peft."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hubfolders
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.adapters import (
    LowRank,
    adapter_state,
    attach,
    load_adapter_state,
    load_merged,
    merge,
)
from beatmeter.features.backbones.base import Identity
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.hubert_config import HubertConfig
from beatmeter.settings import AdapterConfig

LORA = AdapterConfig(r=4, alpha=8.0, dropout=0.0)
WAVES = torch.randn(2, 24_000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[True, False], ids=["pre-LN", "post-LN"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return hubfolders.write_hub_folder(tmp_path / "small", request.param)


def load(folder: Path, **arguments: Any) -> Hubert:
    backbone = load_backbone(str(folder), **arguments)
    assert isinstance(backbone, Hubert)
    return backbone


def states(backbone: Hubert, last: int | None = None) -> list[Tensor]:
    found: list[Tensor] = []
    backbone(WAVES, lambda _, x: found.append(x), last)
    return found


def shaken(backbone: Hubert, trainable: list[nn.Parameter]) -> list[Tensor]:
    """States after every trainable parameter took a step."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in trainable:
            p.add_(0.05 * torch.randn_like(p))
        return states(backbone)


@pytest.mark.parametrize("kind", ["lora", "last_layers", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_changes_before_the_first_step(folder: Path, kind: Any, dtype: str) -> None:
    backbone = load(folder, dtype=dtype)
    with torch.no_grad():
        before = states(backbone)
        attach(backbone, AdapterConfig(kind=kind, r=4))
        after = states(backbone.eval())
    for a, b in zip(before, after, strict=True):
        if kind == "lora" or dtype == "float32":
            assert torch.equal(a, b)
        else:  # what trains computes in float32 from here on
            assert float((a.float() - b.float()).norm() / b.float().norm()) < 0.02


def test_lora_trains_its_factors_alone(folder: Path) -> None:
    backbone = load(folder)
    trainable = attach(backbone, LORA)
    assert len(trainable) == 3 * 2 * 2
    assert sum(p.numel() for p in trainable) == 3 * 2 * 2 * 4 * 32
    names = list(adapter_state(backbone))
    assert names[:2] == [
        "encoder.layers.0.attention.v_proj.lora_A",
        "encoder.layers.0.attention.v_proj.lora_B",
    ]
    backbone.train()
    states(backbone)[-1].square().mean().backward()
    assert all(p.grad is not None for p in trainable)
    others = {id(p) for p in backbone.parameters()} - {id(p) for p in trainable}
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters() if id(p) in others)
    assert any(float(p.grad.abs().max()) > 0 for p in trainable if p.grad is not None)


def test_the_front_end_stays_out_of_the_graph(folder: Path) -> None:
    backbone = load(folder)
    attach(backbone, LORA)
    backbone.train()
    assert not backbone.embed(WAVES).requires_grad
    found = states(backbone)
    assert found[0].requires_grad
    attached = load(folder)
    attach(attached, AdapterConfig(kind="last_layers", layers=1))
    found = states(attached.train())
    assert [x.requires_grad for x in found] == [False, False, True]
    whole = load(folder)
    attach(whole, AdapterConfig(kind="full"))
    assert whole.embed(WAVES).requires_grad


def test_lora_of_the_last_layers_leaves_those_below_out_of_the_graph(folder: Path, tmp_path: Path) -> None:
    backbone = load(folder)
    trainable = attach(backbone, replace(LORA, lora_layers=1))
    names = set(adapter_state(backbone))
    assert {name.split(".")[2] for name in names} == {"2"}
    assert len(trainable) == len(names) == 2 * 2
    assert [x.requires_grad for x in states(backbone.train())] == [False, False, True]
    trained = shaken(backbone.eval(), trainable)
    merged = load(folder)
    load_merged(merged, LORA, adapter_state(backbone))
    for a, b in zip(trained, states(merged), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with pytest.raises(BackboneError, match="the last 4 layers of small were asked for, it holds 3") as told:
        attach(load(folder), replace(LORA, lora_layers=4))
    assert told.value.hint == "Set adapter.lora_layers to 1 ... 3."


@pytest.mark.parametrize(("kind", "layers"), [("last_layers", 2), ("full", 1)])
def test_plain_weights_train(folder: Path, kind: Any, layers: int) -> None:
    backbone = load(folder, dtype="bfloat16")
    trainable = attach(backbone, AdapterConfig(kind=kind, layers=layers))
    assert all(p.dtype == torch.float32 for p in trainable)
    names = set(adapter_state(backbone))
    if kind == "last_layers":
        stems = {n.rpartition(".")[0] for n in names}
        assert {s.split(".")[2] for s in stems if s.startswith("encoder.layers")} == {"1", "2"}
        assert ("encoder.layer_norm.weight" in names) == backbone.config.do_stable_layer_norm
    else:
        assert names == {n for n, _ in backbone.named_parameters()}
    states(backbone.train())[-1].square().mean().backward()
    assert all(p.grad is not None for p in trainable)


def test_truncated_backbones_leave_no_parameter_without_a_gradient(folder: Path) -> None:
    for kind in ("lora", "last_layers", "full"):
        backbone = load(folder, depth=2)
        trainable = attach(backbone, AdapterConfig(kind=kind, layers=1, r=2))  # type: ignore[arg-type]
        torch.stack([x.square().mean() for x in states(backbone.train(), last=2)]).sum().backward()
        assert all(p.grad is not None for p in trainable)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpointing_gives_the_same_gradients(folder: Path, kind: Any) -> None:
    found = []
    for checkpointing in ("no", "yes"):
        torch.manual_seed(1)
        backbone = load(folder)
        trainable = attach(backbone, AdapterConfig(kind=kind, r=4, checkpointing=checkpointing))
        backbone.train()
        torch.manual_seed(2)  # dropout masks
        states(backbone)[-1].square().mean().backward()
        found.append([p.grad for p in trainable])
    for a, b in zip(*found, strict=True):
        assert a is not None
        assert b is not None
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_unknown_targets_and_other_impossible_wishes(folder: Path) -> None:
    with pytest.raises(
        BackboneError,
        match=(
            r"no linear map 'q_porj'. Did you mean 'q_proj'\? All: intermediate_dense, k_proj, out_proj, "
            r"output_dense"
        ),
    ):
        attach(load(folder), AdapterConfig(targets=("v_proj", "q_porj")))
    with pytest.raises(BackboneError, match="the last 4 layers of small were asked for, it holds 3"):
        attach(load(folder), AdapterConfig(kind="last_layers", layers=4))
    twice = load(folder)
    attach(twice, LORA)
    with pytest.raises(BackboneError, match="small has an adapter already"):
        attach(twice, LORA)
    with pytest.raises(BackboneError, match="the spectral backbone has no weights to adapt"):
        attach(load_backbone("spectral"), LORA)


def test_every_linear_map_can_be_a_target(folder: Path) -> None:
    config = AdapterConfig(
        r=2,
        dropout=0.0,
        targets=("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    )
    backbone = load(folder)
    trainable = attach(backbone, config)
    assert len(trainable) == 3 * 6 * 2
    after = shaken(backbone, trainable)
    plain = load(folder)
    load_merged(plain, config, adapter_state(backbone))
    with torch.no_grad():
        assert all(
            torch.allclose(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(after, states(plain), strict=True)
        )


@pytest.mark.parametrize("kind", ["lora", "last_layers", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trained_adapter_predicts_from_a_plain_backbone(folder: Path, kind: Any, dtype: str) -> None:
    config = AdapterConfig(kind=kind, r=4, alpha=8.0)
    trained = load(folder, dtype=dtype)
    after = shaken(trained.eval(), attach(trained, config))
    state = {name: value.clone() for name, value in adapter_state(trained).items()}
    plain = load(folder, dtype=dtype)
    with torch.no_grad():
        before = states(plain)
        load_merged(plain, config, state)
        loaded = states(plain)
    assert not any(p.requires_grad for p in plain.parameters())
    for a, b in zip(after, loaded, strict=True):
        tolerance = 1e-5 if dtype == "float32" else 1e-2
        assert float((a - b).float().norm() / a.float().norm()) < tolerance
    assert float((after[-1].float() - before[-1].float()).norm() / after[-1].float().norm()) > 0.03
    assert sum(isinstance(m, LowRank) for m in plain.modules()) == (
        6 if (kind, dtype) == ("lora", "bfloat16") else 0
    )


def test_merging_equals_the_adapter(folder: Path) -> None:
    backbone = load(folder)
    after = shaken(backbone, attach(backbone, LORA))
    names = set(load(folder).state_dict())
    merge(backbone)
    assert set(backbone.state_dict()) == names
    assert not any(p.requires_grad for p in backbone.parameters())
    with torch.no_grad():
        assert all(
            torch.allclose(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(after, states(backbone), strict=True)
        )


def test_a_merged_backbone_takes_a_new_adapter(folder: Path) -> None:
    backbone = load(folder)
    shaken(backbone, attach(backbone, LORA))
    merge(backbone)
    with torch.no_grad():
        merged = states(backbone)
        assert len(attach(backbone, LORA)) == 12
        assert all(torch.equal(a, b) for a, b in zip(merged, states(backbone), strict=True))


def test_training_goes_on_from_a_saved_state(folder: Path) -> None:
    for config in (LORA, AdapterConfig(kind="last_layers", layers=1)):
        first = load(folder)
        after = shaken(first, attach(first, config))
        second = load(folder)
        attach(second, config)
        load_adapter_state(second, adapter_state(first))
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(after, states(second), strict=True))


def test_states_that_do_not_fit_are_refused(folder: Path) -> None:
    backbone = load(folder)
    attach(backbone, LORA)
    state = adapter_state(backbone)
    short = {name: value for name, value in state.items() if ".0." not in name}
    with pytest.raises(
        BackboneError,
        match=r"saved adapter does not fit small: 4 tensors differ, first .*\(saved absent, here \(4, 32\)\)",
    ):
        load_adapter_state(backbone, short)
    with pytest.raises(BackboneError, match="does not fit small"):
        load_merged(
            load(folder), LORA, {name.replace("layers.0", "layers.7"): value for name, value in state.items()}
        )
    with pytest.raises(BackboneError, match="does not fit small"):
        load_merged(
            load(folder),
            LORA,
            {name: value for name, value in state.items() if not name.endswith("q_proj.lora_B")},
        )
    with pytest.raises(BackboneError, match="does not fit small"):
        load_merged(load(folder), AdapterConfig(kind="full"), {"nothing.weight": torch.zeros(1)})
    untouched = load(folder)
    load_merged(untouched, LORA, {})
    with torch.no_grad():
        assert torch.equal(states(untouched)[-1], states(load(folder))[-1])


def test_prediction_needs_no_peft(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    backbone = load(folder)
    after = shaken(backbone, attach(backbone, LORA))
    save_file(
        {name: value.contiguous() for name, value in adapter_state(backbone).items()},
        tmp_path / "adapter.safetensors",
    )
    torch.save((WAVES, after[-1]), tmp_path / "expected.pt")
    code = (
        "import sys, torch; from safetensors.torch import load_file\n"
        "from beatmeter.features.backbones import load_backbone; from beatmeter.features.backbones.adapters "
        "import load_merged\n"
        "from beatmeter.settings import AdapterConfig\n"
        f"b = load_backbone({str(folder)!r}); load_merged(b, AdapterConfig(r=4, alpha=8.0), "
        f"load_file({str(tmp_path / 'adapter.safetensors')!r}))\n"
        f"waves, expected = torch.load({str(tmp_path / 'expected.pt')!r}, weights_only=True); found = []\n"
        "b(waves, lambda k, x: found.append(x))\n"
        "print(bool((found[-1] - expected).abs().max() < 1e-4), 'peft' in sys.modules, 'transformers' in "
        "sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


@pytest.mark.parametrize(
    ("sizes", "count"), [((768, 12, 12, 3072, False), 589_824), ((1024, 24, 16, 4096, True), 1_572_864)]
)
def test_published_counts_of_trainable_parameters(sizes: tuple[Any, ...], count: int) -> None:
    """r = 16 on q_proj and v_proj of MERT-v1-95M and 330M."""
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "do_stable_layer_norm",
    )
    with torch.device("meta"):
        backbone = Hubert(
            HubertConfig.from_json(dict(zip(names, sizes, strict=True)), "x"),
            Identity("x", "", "", ""),
            24_000,
            True,
        )
        assert sum(p.numel() for p in attach(backbone, AdapterConfig())) == count
