"""Heads: standardisation per layer, a mix that starts uniform, branches that see what they should."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from beatmeter.errors import ConfigError
from beatmeter.learning.standardiser import Moments, Standardiser, standardiser_of
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
from beatmeter.settings import HeadConfig
from beatmeter.tasks.heads import Dropout, Head, LayerMix, layer_weights, mix_parameters

LAYERS, DIM, CHANNELS, LAGS = 3, 8, 4, 64
SPEC = FeatureSpec(
    "toy",
    "1",
    "0" * 64,
    LAYERS,
    DIM,
    320,
    400,
    True,
    ChunkSpec(),
    (
        PoolingSpec(
            "stats", "stats", "chunk", (1, 2, 3), ("pool", "dim"), (2, DIM), {"statistics": ["mean", "max"]}
        ),
        PoolingSpec("lag", "lag", "window", (1, 2, 3), ("channel", "lag"), (CHANNELS, LAGS), {"window": 6}),
    ),
)


def features(n: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 20.0, 300.0])
    return {
        "stats": torch.randn(n, LAYERS, 2, DIM, generator=g) * scale[:, None, None] + 5,
        "lag": torch.randn(n, LAYERS, CHANNELS, LAGS, generator=g) * scale[:, None, None],
    }


def test_the_stats_head_is_norm_linear_gelu_dropout_linear() -> None:
    head = Head(SPEC, HeadConfig(), 6)
    kinds = [type(m) for m in [*head.branches["stats"].layers, head.dropout, head.output]]
    assert kinds == [nn.LayerNorm, nn.Linear, nn.GELU, Dropout, nn.Linear]
    assert (head.branches["stats"].layers[1].in_features, head.branches["stats"].layers[1].out_features) == (
        2 * DIM,
        256,
    )
    assert head.dropout.p == 0.3
    assert head(features()).shape == (16, 6)


def test_the_mix_starts_uniform_and_sums_to_one() -> None:
    mix = LayerMix(5)
    assert torch.allclose(mix.weights, torch.full((5,), 0.2))
    x = torch.randn(2, 5, 7)
    assert torch.allclose(mix(x), x.mean(dim=1), atol=1e-6)


def fitted(pooling: str, *batches: torch.Tensor) -> Standardiser:
    moments = Moments(SPEC[pooling])
    for batch in batches:
        moments.add(batch)
    return standardiser_of({pooling: moments})


def test_standardised_layers_have_mean_zero_and_deviation_one() -> None:
    x = features(500)["stats"]
    y = fitted("stats", x[:200], x[200:])({"stats": x})["stats"]
    assert y.mean(dim=0).abs().max() < 1e-4
    assert (y.std(dim=0, correction=0) - 1).abs().max() < 1e-4


def test_lag_standardisation_is_shared_by_all_lags() -> None:
    standardiser = fitted("lag", features(200)["lag"])
    assert standardiser.means["lag"].shape == (LAYERS, CHANNELS, 1)
    x = features(4)["lag"]
    moved = standardiser({"lag": x.roll(3, dims=-1)})["lag"]
    assert torch.allclose(moved, standardiser({"lag": x})["lag"].roll(3, dims=-1)), (
        "a tempo change must stay a shift"
    )


def test_a_constant_feature_stays_finite() -> None:
    x = torch.full((10, LAYERS, 2, DIM), 7.0)
    assert torch.equal(fitted("stats", x)({"stats": x})["stats"], torch.zeros_like(x))


def test_the_lag_branch_hears_the_same_at_another_tempo() -> None:
    torch.manual_seed(0)
    head = Head(SPEC, HeadConfig(poolings=("lag",), kernel=3, dilations=(1, 2)), 6).eval()
    x = torch.zeros(1, LAYERS, CHANNELS, LAGS)
    x[..., 30:34] = 1.0
    shifted = x.roll(5, dims=-1)
    assert torch.allclose(head({"lag": x}), head({"lag": shifted}), atol=1e-5)


def test_both_branches_feed_one_output() -> None:
    head = Head(SPEC, HeadConfig(poolings=("stats", "lag"), channels=32), 6)
    assert head.output.in_features == 256 + 64
    assert head(features()).shape == (16, 6)
    assert set(layer_weights(head)) == {"stats", "lag"}
    assert len(mix_parameters(head)) == 2


def test_a_pooling_that_the_features_lack_is_named_with_the_remedy() -> None:
    with pytest.raises(
        ConfigError, match=r"the head reads lag, the features hold stats.*features\.poolings=stats,lag"
    ):
        Head(SPEC.only(["stats"]), HeadConfig(poolings=("lag",)), 6)
