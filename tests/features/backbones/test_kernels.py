"""The fast products give what PyTorch's own functions give, wherever they are used and wherever they cannot
be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from beatmeter.features.backbones import kernels

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
    overlapping = (
        torch.randn(200, 16, generator=generator).to(dtype).unfold(0, 3, 2).transpose(1, 2).flatten(1)
    )
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


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_drops_its_share_and_keeps_the_mean(dtype: torch.dtype, share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(7, 14_287, dtype=dtype, requires_grad=True)  # not a multiple of four
    y = kernels.dropout(x, share)
    zeros = (y == 0).double()
    error = (share * (1 - share) / y.numel()) ** 0.5
    assert abs(float(zeros.mean()) - share) < 4 * error
    rounded = round(share * 2**16) / 2**16
    assert set(y.detach().unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - rounded), dtype=dtype))}
    neighbours = (zeros[:, 1:] * zeros[:, :-1]).mean()  # chances out of one number are independent
    assert abs(float(neighbours) - share**2) < 6 * (share**2 / y.numel()) ** 0.5
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())
    torch.manual_seed(0)
    assert torch.equal(kernels.dropout(x, share), y), "it follows torch's seed"
    assert not torch.equal(kernels.dropout(x, share), y)
    assert torch.equal(kernels.dropout(x, 0.0), x)
    assert not kernels.dropout(x, 1.0).any()


def test_attention_that_learns_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(i)).bfloat16().requires_grad_()
        for i in range(3)
    ]
    ours, theirs = kernels.attention(*made), F.scaled_dot_product_attention(*made)
    assert near(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), made),
        torch.autograd.grad(theirs.square().sum(), made),
        strict=True,
    ):
        assert near(a, b)
    monkeypatch.setattr(kernels, "dropout", lambda x, share: x * share)
    assert near(kernels.attention(*made, 0.5), 0.5 * theirs), "weights are what is dropped"


@pytest.mark.parametrize("taps", [5, 6])
def test_wide_convolution(taps: int) -> None:
    conv = torch.nn.Conv1d(12, 12, taps, padding=taps // 2, groups=3)
    x = torch.randn(2, 9, 12, requires_grad=True)
    ours, theirs = kernels.wide_convolution(x, conv), conv(x.transpose(1, 2))[:, :, :9].transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-6)
    wanted = (x, conv.weight, conv.bias)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), wanted),
        torch.autograd.grad(theirs.square().sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_every_function() -> None:
    x, w, b = (
        torch.randn(5, 8, requires_grad=True),
        torch.randn(8, 8, requires_grad=True),
        torch.randn(8, requires_grad=True),
    )
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
