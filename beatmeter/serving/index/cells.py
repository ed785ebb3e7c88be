"""Inverted lists: rows lie in the order of cells around centroids, and a search reads the nearest cells.

Centroids are of k-means on a sample (Lloyd 1982), cells the nearest centroid by Euclidean distance (Jegou,
Douze and Schmid, "Product quantization for nearest neighbor search", IEEE TPAMI 33, 2011). How many cells a
search reads is chosen for a recall that is measured against the exact search, because a fixed number loses
recall as rows grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from beatmeter.runtime.device import fast_dtype
from beatmeter.runtime.progress import Tick, untold
from beatmeter.serving.index.scan import (
    BLOCK,
    NOTHING,
    QUERIES,
    RUN,
    SPARE,
    Query,
    exactly,
    products,
    search_all,
    turned_for,
)
from beatmeter.serving.index.shards import Shard

SAMPLE = 32  # rows a cell to learn centroids from
ROUNDS = 8  # of Lloyd's algorithm
JUDGED = 512  # rows that choose the number of cells, and as many that measure the recall
SURE = 1.64  # standard errors by which the recall of the choosing rows must exceed what is wanted
_ASSIGNED = 16_384  # rows assigned at a time
_STEP, _COLUMNS = (
    64,
    8,
)  # rows, queries multiplied at a time are multiples: oneDNN plans 1 ms for every new shape


def cell_count(rows: int) -> int:
    """Twice the square root of the rows: finding the nearest centroids and reading some cells then cost a
    search alike."""
    return max(1, int(2 * rows**0.5))


def learn_centroids(
    sample: Float32[np.ndarray, "row dim"], cells: int, seed: int = 0, tick: Tick = untold
) -> Float32[np.ndarray, "cell dim"]:
    """k-means from random rows; a cell that loses all rows begins anew at a random one. `tick(1)` after each
    of ROUNDS rounds."""
    rng = np.random.default_rng(seed)
    centroids = sample[rng.choice(len(sample), cells, replace=False)].copy()
    for _ in range(ROUNDS):
        nearest = assign(sample, centroids)
        counts = np.bincount(nearest, minlength=cells)
        order = np.argsort(nearest, kind="stable")
        begins = np.cumsum(counts) - counts
        filled = counts > 0
        centroids[filled] = np.add.reduceat(sample[order], begins[filled], axis=0) / counts[filled, None]
        centroids[~filled] = sample[rng.choice(len(sample), int((~filled).sum()))]
        tick(1)
    return centroids


def assign(
    rows: Float32[np.ndarray, "row dim"], centroids: Float32[np.ndarray, "cell dim"]
) -> Int64[np.ndarray, " row"]:
    """The nearest centroid of every row."""
    precision = getattr(torch, fast_dtype(torch.device("cpu")))
    centre = centroids.mean(axis=0)
    turned = torch.from_numpy(centroids - centre).to(precision).T
    half = torch.from_numpy(0.5 * np.square(centroids - centre).sum(axis=1))
    found = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), _ASSIGNED):
        block = torch.from_numpy(rows[at : at + _ASSIGNED] - centre).to(precision)
        found[at : at + _ASSIGNED] = ((block @ turned).float() - half).argmax(dim=1).numpy()
    return found


def search_cells(
    shards: Sequence[Shard],
    query: Query,
    centroids: Float32[np.ndarray, "cell dim"],
    wanted: Float32[np.ndarray, "query dim"],
    probes: int,
    k: int,
) -> tuple[Int64[np.ndarray, "query hit"], Float32[np.ndarray, "query hit"]]:
    """As `search_all`, over the `probes` cells whose centroids are nearest to `wanted`, the queries
    themselves; shards without cells are read whole. A row of -1 and a score of -inf stand where these cells
    hold fewer than k rows."""
    keep = k + max(SPARE, k // 4)
    turned = turned_for(query)
    near = _nearest(wanted, centroids, probes)
    asked = _by_cell(near, len(centroids))
    best = torch.full((len(wanted), keep), NOTHING)
    where = torch.full((len(wanted), keep), -1, dtype=torch.long)
    first = 0
    for number, shard in enumerate(shards):
        for values, at in _found(shard, number, query, turned, asked):
            best, where = _merged(best, where, values.float(), at + first, keep)
        first += len(shard)
    where[best == NOTHING] = -1
    rows, scores = exactly(shards, query, where.numpy(), k)
    return np.where(scores == NOTHING, -1, rows), scores


def _nearest(
    wanted: Float32[np.ndarray, "query dim"], centroids: Float32[np.ndarray, "cell dim"], probes: int
) -> Int64[np.ndarray, "query probe"]:
    c = torch.from_numpy(centroids)
    near: np.ndarray = (
        (torch.from_numpy(wanted) @ c.T - 0.5 * c.square().sum(dim=1))
        .topk(min(probes, len(c)), dim=1)
        .indices.numpy()
    )
    return near


def _by_cell(near: Int64[np.ndarray, "query probe"], cells: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every cell the queries that ask for it, and these filled up to a multiple of _COLUMNS by one that
    does not exist."""
    n, probes = near.shape
    order, counts = np.argsort(near.ravel(), kind="stable"), np.bincount(near.ravel(), minlength=cells)
    padded = -(-counts // _COLUMNS) * _COLUMNS
    ends, starts = np.cumsum(padded), np.cumsum(padded) - padded
    filled = np.full(ends[-1], n)
    filled[np.arange(n * probes) + np.repeat(starts - (np.cumsum(counts) - counts), counts)] = order // probes
    return [
        (filled[a : a + count], filled[a:b])
        for a, b, count in zip(starts.tolist(), ends.tolist(), counts.tolist(), strict=True)
    ]


def _found(
    shard: Shard, number: int, query: Query, turned: Tensor, asked: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(query, run) scores and first rows of the runs that a shard's cells, or all its rows, give; -inf where
    a query asks for less."""
    n = turned.shape[1]
    if shard.cells is None:
        for at in range(0, len(shard), BLOCK):
            runs = products(shard, number, query, turned, at, min(at + BLOCK, len(shard))).T
            yield runs, (at + RUN * torch.arange(runs.shape[1])).expand(n, -1)
        return
    ends, rows = shard.cells.tolist(), torch.cat([turned.T, turned.T[:1]])
    pieces, pairs = (
        [],
        [],
    )  # scores of a cell, (query, run) in one row; and of each query there: who, how many runs, the first row
    for cell, (who, padded) in enumerate(asked):
        begin, end = ends[cell], ends[cell + 1]
        if end == begin or not len(who):
            continue
        start, stop = begin // _STEP * _STEP, min(-(-end // _STEP) * _STEP, len(shard))
        part = query if query.scales is None else query.of(np.minimum(padded, n - 1))
        runs = products(shard, number, part, rows[torch.from_numpy(padded)].T, start, stop)
        runs = runs[(begin - start) // RUN : -(-(end - start) // RUN)]  # those that hold a row of the cell
        pieces.append(runs.T[: len(who)].reshape(-1))
        pairs.append((who, len(runs), begin // RUN * RUN))
    if not pieces:
        return
    flat = torch.cat(pieces).float().numpy()
    whose = np.concatenate([who for who, _, _ in pairs])
    many = np.repeat([count for _, count, _ in pairs], [len(who) for who, _, _ in pairs])
    first = np.repeat([begin for _, _, begin in pairs], [len(who) for who, _, _ in pairs])
    inside = np.arange(len(flat)) - np.repeat(np.cumsum(many) - many, many)
    order = np.argsort(whose, kind="stable")
    offset = np.empty_like(many)  # of a pair's runs in its query's row
    before = np.cumsum(many[order]) - many[order]
    starts = np.searchsorted(whose[order], np.arange(n))
    offset[order] = before - before[np.minimum(starts, len(order) - 1)][whose[order]]
    row, column = np.repeat(whose, many), np.repeat(offset, many) + inside
    values = np.full((n, int(column.max()) + 1), NOTHING, np.float32)
    where = np.full(values.shape, -1, np.int64)
    values[row, column] = flat
    where[row, column] = np.repeat(first, many) + RUN * inside
    values[:, 1:][where[:, 1:] == where[:, :-1]] = NOTHING  # a run at the border of two cells
    yield torch.from_numpy(values), torch.from_numpy(where)


def _merged(best: Tensor, where: Tensor, values: Tensor, at: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    if values.shape[1] > keep:
        values, chosen = values.topk(keep, dim=1)
        at = at.gather(1, chosen)
    both, positions = torch.cat([best, values], dim=1), torch.cat([where, at], dim=1)
    best, chosen = both.topk(keep, dim=1)
    return best, positions.gather(1, chosen)


def choose_probes(
    shards: Sequence[Shard],
    origin: Float32[np.ndarray, " dim"],
    centroids: Float32[np.ndarray, "cell dim"],
    recall: float,
    k: int,
    seed: int = 0,
) -> tuple[int, float]:
    """The smallest number of cells whose recall@k on some rows as queries (themselves not counted) is surely
    `recall`, and its recall on other rows."""
    rng = np.random.default_rng(seed)
    live = np.concatenate(
        [
            np.flatnonzero(~s.gone) + first
            for s, first in zip(shards, np.cumsum([0, *map(len, shards)]), strict=False)
        ]
    )
    chosen = rng.permutation(live)[: 2 * JUDGED]
    firsts = np.cumsum([0, *map(len, shards)])
    owner = np.searchsorted(firsts, chosen, side="right") - 1
    vectors = np.stack(
        [shards[s].vectors[row - firsts[s]] for s, row in zip(owner.tolist(), chosen.tolist(), strict=True)]
    )
    truth = np.concatenate(
        [
            search_all(shards, Query(vectors[i : i + QUERIES], origin), k + 1)[0]
            for i in range(0, len(chosen), QUERIES)
        ]
    )

    def measured(chosen_rows: slice, probes: int) -> np.ndarray:
        """(query,) recall of some of the chosen rows."""
        shares = []
        for i in range(chosen_rows.start, chosen_rows.stop, QUERIES):
            part = slice(i, min(i + QUERIES, chosen_rows.stop))
            rows, _ = search_cells(
                shards, Query(vectors[part], origin), centroids, vectors[part], probes, k + 1
            )
            for mine, right, own in zip(rows, truth[part], chosen[part], strict=True):
                wanted = set(right.tolist()) - {int(own)}
                shares.append(len(wanted & set(mine.tolist())) / max(1, len(wanted)))
        return np.array(shares)

    def enough(probes: int) -> bool:
        shares = measured(slice(0, half), probes)
        return bool(shares.mean() - SURE * shares.std() / np.sqrt(len(shares)) >= recall)

    half = max(1, len(chosen) // 2)
    low, high = (0, 1) if recall < 1 else (0, len(centroids))
    while high < len(centroids) and not enough(high):
        low, high = high, min(2 * high, len(centroids))
    while recall < 1 and high - low > max(1, high // 8):  # to an eighth: more is not worth it
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high, float(
        measured(slice(half, len(chosen)) if len(chosen) > half else slice(0, half), high).mean()
    )


def in_cells(
    cells: Int64[np.ndarray, " row"], count: int
) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " end"]]:
    """The rows in the order of their cells, and where each cell begins in that order (and the last ends)."""
    order = np.argsort(cells, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))])


def cut_cells(ends: Int64[np.ndarray, " end"], most: int) -> Iterator[tuple[int, int]]:
    """Runs of whole cells with at most `most` rows together; a larger cell is a run by itself."""
    begin = 0
    while begin < ends[-1]:
        end = int(ends[np.searchsorted(ends, begin + most, side="right") - 1])
        end = end if end > begin else int(ends[np.searchsorted(ends, begin, side="right")])
        yield begin, end
        begin = end
