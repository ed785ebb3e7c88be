"""Rows that are near to everything: mean and spread of the scores of every row over all rows of an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from beatmeter.serving.index.shards import SHARD_ROWS, Shard

_BLOCK = SHARD_ROWS // 16


def hubness(
    shards: Sequence[Shard], dim: int
) -> tuple[Float32[np.ndarray, " dim"], list[Float32[np.ndarray, " row"]]]:
    """Mean of all vectors m, and 1 / standard deviation of the scores of every row over all rows, by shard.

    With their covariance C the mean score of x is m.x and its variance x.C.x: no matrix of rows times rows is
    needed."""
    total, products, rows = np.zeros(dim), np.zeros((dim, dim)), 0
    for block in _blocks(shards):
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block
        rows += len(block)
    mean = total / rows
    covariance = (products / rows - np.outer(mean, mean)).astype(np.float32)
    scales = []
    for shard in shards:
        variance = np.concatenate(
            [
                np.einsum("ij,ij->i", b @ covariance, b)
                for i in range(0, len(shard), _BLOCK)
                for b in [shard.vectors[i : i + _BLOCK]]
            ]
        )
        scales.append((1 / np.sqrt(np.maximum(variance, 1e-12))).astype(np.float32))
    return mean.astype(np.float32), scales


def _blocks(shards: Sequence[Shard]) -> Iterator[np.ndarray]:
    for shard in shards:
        for i in range(0, len(shard), _BLOCK):
            yield shard.vectors[i : i + _BLOCK][~shard.gone[i : i + _BLOCK]]
