"""The arithmetic of a search: products in bfloat16 over blocks of rows, the best few again in float32.

A block's products are reduced to the largest of every run of 16 neighbouring rows; the runs with the largest
are computed again exactly. With at least k + 16 runs kept, a row is missed only where bfloat16 is wrong by
more than the distance between the k-th and the (k + 16)-th best run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from beatmeter.runtime.device import fast_dtype
from beatmeter.runtime.memory import release
from beatmeter.serving.index.shards import Shard

RUN = 16  # rows whose largest product stands for all
BLOCK = 4096  # rows multiplied at a time: products of 100 queries fit a core's cache
QUERIES = 128  # queries at a time
SPARE = 16  # runs kept beyond k
NOTHING = float("-inf")


@dataclass(frozen=True)
class Query:
    """Queries against one index: `vectors` (query, dim); the score of a row is `vectors` . row, or with
    `scales`, one (row,) per shard, (`vectors` . row) * scale. `moved` holds what the products with the rows'
    `scan`, which lie about `origin`, lack."""

    vectors: Float32[np.ndarray, "query dim"]
    origin: Float32[np.ndarray, " dim"]
    scales: Sequence[np.ndarray] | None = None

    def of(self, rows: np.ndarray | slice) -> Query:
        """Some of the queries."""
        return Query(self.vectors[rows], self.origin, self.scales)

    @property
    def moved(self) -> Tensor:
        """(query,) product with the origin."""
        return torch.from_numpy(self.vectors @ self.origin)


def products(shard: Shard, number: int, query: Query, turned: Tensor, begin: int, end: int) -> Tensor:
    """(run, query) the largest score of every run of rows from `begin` to `end`, -inf where all were removed.
    `turned` is (dim, query) in the precision that is multiplied."""
    block = shard.scan[begin:end]
    scores = (block if turned.dtype == block.dtype else block.to(turned.dtype)) @ turned
    if query.scales is not None:
        scores = (scores.float() + query.moved) * torch.from_numpy(query.scales[number][begin:end, None])
    if shard.holes:
        scores[torch.from_numpy(shard.gone[begin:end])] = NOTHING
    rows, width = scores.shape
    whole = rows // RUN * RUN
    if whole == rows:
        return scores.view(-1, RUN, width).amax(dim=1)
    return torch.cat(
        [scores[:whole].view(-1, RUN, width).amax(dim=1), scores[whole:].amax(dim=0, keepdim=True)]
    )


def turned_for(query: Query) -> Tensor:
    """(dim, query) in bfloat16 where the processor multiplies it at full speed, else float32."""
    return torch.from_numpy(query.vectors).to(getattr(torch, fast_dtype(torch.device("cpu")))).T


def search_all(
    shards: Sequence[Shard], query: Query, k: int
) -> tuple[Int64[np.ndarray, "query hit"], Float32[np.ndarray, "query hit"]]:
    """The k best rows of all shards, exactly: rows count on from shard to shard; (query, min(k, rows)) rows
    and scores."""
    keep = k + max(SPARE, k // 4)
    turned = turned_for(query)
    best = torch.full((len(query.vectors), 0), NOTHING, dtype=turned.dtype)
    where, first = torch.zeros(best.shape, dtype=torch.long), 0
    for number, shard in enumerate(shards):
        found = [
            products(shard, number, query, turned, at, min(at + BLOCK, len(shard)))
            for at in range(0, len(shard), BLOCK)
        ]
        release(shard.arrays["scan"])  # of a large index only one shard is held at a time
        runs = torch.cat(found).T.contiguous()
        values, at = runs.topk(min(keep, runs.shape[1]), dim=1)
        at = at * RUN + first
        values, at = torch.cat([best, values.to(best.dtype)], dim=1), torch.cat([where, at], dim=1)
        best, chosen = values.topk(min(keep, values.shape[1]), dim=1)
        where, first = at.gather(1, chosen), first + len(shard)
    return exactly(shards, query, where.numpy(), k)


def exactly(
    shards: Sequence[Shard], query: Query, runs: Int64[np.ndarray, "query run"], k: int
) -> tuple[Int64[np.ndarray, "query hit"], Float32[np.ndarray, "query hit"]]:
    """The k best rows of these runs (their first rows, -1 for none) by scores in float32; equal scores in the
    order of rows."""
    firsts = np.cumsum([0, *(len(s) for s in shards)])
    runs = np.sort(runs, axis=1)
    ends = firsts[
        np.searchsorted(firsts, np.maximum(runs, 0), side="right")
    ]  # a run ends with its shard, and before the next run
    following = np.concatenate([runs[:, 1:], np.full((len(runs), 1), firsts[-1])], axis=1)
    rows = runs[:, :, None] + np.arange(RUN)
    counts = ((runs >= 0)[:, :, None] & (rows < np.minimum(ends, following)[:, :, None])).reshape(
        len(runs), -1
    )
    rows = rows.reshape(counts.shape)
    scores = np.full(rows.shape, NOTHING, np.float32)
    for number, shard in enumerate(shards):
        mine = counts & (rows >= firsts[number]) & (rows < firsts[number + 1])
        for i in np.flatnonzero(mine.any(axis=1)).tolist():
            at = rows[i, mine[i]] - firsts[number]
            values = shard.vectors[at] @ query.vectors[i]
            if query.scales is not None:
                values = values * query.scales[number][at]
            scores[i, mine[i]] = np.where(shard.gone[at], np.float32(NOTHING), values)
            release(shard.vectors)  # large pages around each row came with it
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
