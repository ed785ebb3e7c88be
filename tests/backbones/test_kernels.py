"""The fast products give what PyTorch's own functions give, wherever they are used and wherever they cannot be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from beatmeter.backbones import kernels

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=["trusted", "not trusted"])
def trust(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "not trusted":
        monkeypatch.setattr(kernels, "_trusted", lambda dtype: False)


def near(ours: Tensor, theirs: Tensor) -> bool:
    assert ours.dtype == theirs.dtype
    return torch.allclose(ours, theirs, atol=DTYPES[theirs.dtype], rtol=DTYPES[theirs.dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(trust: None, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, generator=generator).to(dtype) for s in ((2, 70, 48), (96, 48), (96,)))
    strided = torch.randn(2, 140, 96, generator=generator).to(dtype)[:, ::2, ::2]
    overlapping = torch.randn(200, 16, generator=generator).to(dtype).unfold(0, 3, 2).transpose(1, 2).flatten(1)
    for bias in (b, None):
        assert near(kernels.linear(x, w, bias), F.linear(x, w, bias))
        assert near(kernels.linear(x, w, bias, activate=True), F.gelu(F.linear(x, w, bias)))
        assert near(kernels.linear(strided, w, bias), F.linear(strided, w, bias))
        assert near(kernels.linear(overlapping, w, bias), F.linear(overlapping, w, bias))
        assert near(kernels.linear(x, w.t().contiguous().t(), bias), F.linear(x, w, bias))
    assert kernels.linear(x[:, :0], w, b).shape == (2, 0, 96)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", [1, 1 << 21])
def test_attention(trust: None, dtype: torch.dtype, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "KEPT", kept)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 50, 4, 8, generator=generator).to(dtype).transpose(1, 2) for _ in range(3))
    assert near(kernels.attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_gradients_flow_through_every_function() -> None:
    x, w, b = torch.randn(5, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    ours = torch.autograd.grad(kernels.linear(x, w, b, activate=True).square().sum(), (x, w, b))
    theirs = torch.autograd.grad(F.gelu(F.linear(x, w, b)).square().sum(), (x, w, b))
    assert all(torch.allclose(a, t, rtol=1e-5) for a, t in zip(ours, theirs, strict=True))
    q = torch.randn(1, 2, 6, 4, dtype=torch.bfloat16, requires_grad=True)
    assert kernels.attention(q, q, q).requires_grad
    frozen = kernels.linear(x.detach(), w.detach(), b.detach())
    assert not frozen.requires_grad


def test_gelu_spares_what_a_gradient_needs() -> None:
    kept = torch.linspace(-2, 2, 9)
    wanted = F.gelu(kept)
    leaf = kept.clone().requires_grad_(True)
    assert torch.equal(kernels.gelu(leaf).detach(), wanted)
    assert torch.equal(leaf.detach(), kept)
    overwritten = kept.clone()
    assert kernels.gelu(overwritten) is overwritten
    assert torch.allclose(overwritten, wanted)


def test_autocast_decides_the_dtype() -> None:
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernels.linear(x, w).dtype == torch.bfloat16
    assert kernels.linear(x, w).dtype == torch.float32


def test_an_operator_that_lies_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_product", lambda x, w, b, attribute: F.linear(x, w, b))  # forgets GELU
    assert not kernels._trusted.__wrapped__(torch.float32)

    def missing(*_: object) -> Tensor:
        raise AttributeError("no such operator")

    monkeypatch.setattr(kernels, "_product", missing)
    assert not kernels._trusted.__wrapped__(torch.float32)
