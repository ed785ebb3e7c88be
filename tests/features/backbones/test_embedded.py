"""The embedded backbone: the same numbers from the seed everywhere, trained weights when they are shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from beatmeter.features.backbones import embedded, load_backbone
from beatmeter.features.backbones.checkpoint import write_folder

# python -c "from beatmeter.features.backbones.embedded import fresh; print(fresh(0).identity.weights)"
SEED_0 = "01708f69f8afae039cd7f5fa4f86de2dcf7e8ea01f166559da033d12e6ade544"


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MODELS", tmp_path / "none")


def test_seeded_weights_are_golden_and_said_to_be_untrained(nothing_shipped: None) -> None:
    identity = load_backbone("embedded").identity
    assert identity.weights == SEED_0
    assert (identity.name, identity.revision, identity.licence, identity.trained) == (
        "embedded",
        "seed-0",
        "MIT",
        False,
    )
    assert embedded.fresh(1).identity.weights != SEED_0
    torch.manual_seed(5)
    assert embedded.fresh().identity.weights == SEED_0  # no other random state enters


def test_same_features_in_another_process() -> None:
    code = (
        "import torch, json; from beatmeter.features.backbones import load_backbone\n"
        "torch.set_num_threads(1); b = load_backbone('embedded'); found = []\n"
        "b(torch.sin(torch.arange(48000) * 0.05)[None], lambda k, x: found.append([float(x.double().sum()), "
        "float(x[0, 7, 3])]))\n"
        "print(json.dumps([b.identity.weights, found]))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
    weights, found = json.loads(first)
    assert weights == load_backbone("embedded").identity.weights
    assert len(found) == 6


def test_architecture(nothing_shipped: None) -> None:
    backbone = load_backbone("embedded")
    assert (backbone.sample_rate, backbone.hop, backbone.span, backbone.dim, backbone.n_layers) == (
        24_000,
        320,
        400,
        128,
        6,
    )
    assert backbone.frames(120_080) == 375
    assert 1_000_000 < sum(p.numel() for p in backbone.parameters()) < 4_000_000
    assert {n.rpartition(".")[2] for n, _ in backbone.named_modules()} >= {
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
    }
    trainable = embedded.fresh(2)
    assert all(p.requires_grad for p in trainable.parameters())


def test_states_of_the_seed_are_of_order_one(nothing_shipped: None) -> None:
    """No layer of the untrained network dies or explodes."""
    deviations: list[float] = []
    with torch.no_grad():
        load_backbone("embedded")(torch.randn(2, 48_000), lambda _, x: deviations.append(float(x.std())))
    assert all(0.1 < d < 30 for d in deviations), deviations


@pytest.mark.parametrize("autocast", [False, True])
def test_learns(autocast: bool) -> None:
    """Every weight gets a gradient, and a few steps bring a loss down, in float32 and under bfloat16
    autocast."""
    torch.manual_seed(0)
    model = embedded.fresh(4).eval()  # without dropout the loss must fall
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    waves, wanted = torch.randn(2, 12_000), torch.randn(2, model.frames(12_000), model.dim)
    losses: list[float] = []
    for _ in range(4):
        found: list[torch.Tensor] = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            model(waves, lambda _, x, found=found: found.append(x))
        loss = (found[-1].float() - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["embedded", "embedded-hard"])
def test_shipped_weights_replace_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(embedded, "MODELS", tmp_path)
    model = embedded.fresh(9)
    with torch.no_grad():
        model.feature_projection.projection.weight.mul_(2)
    write_folder(model, tmp_path / name, torch.float16)
    shipped = load_backbone(name)
    assert shipped.identity.trained
    assert shipped.identity.name == name
    assert shipped.identity.revision == shipped.identity.weights[:12]
    assert load_backbone(name, weights=False).identity == shipped.identity
    found = {key: value for key, value in shipped.state_dict().items() if "pos_conv" not in key}
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, model.state_dict()[key], rtol=1e-3, atol=1e-6)
    assert load_backbone(name, normalise="no").normalise is False
    untrained = load_backbone("embedded-untrained").identity
    assert (untrained.weights, untrained.trained) == (SEED_0, False), "the seed stays at hand to compare with"
