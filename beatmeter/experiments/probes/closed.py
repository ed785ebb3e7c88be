"""Closed-form probes over folds of groups: ridge regression of all values, and shrinkage LDA of one column of
classes.

Both need one matrix of the features of a training set, (dim, dim): for ridge their scatter, for LDA the
scatter within classes. Scatters of folds add up, so every training set, inner ones included, is the whole
minus one or two folds, and one Cholesky factor per training set and strength serves all targets. With more
columns than items the features are first turned, without loss, into as many columns as there are items.

Ridge: A. E. Hoerl and R. W. Kennard, Technometrics 12, 1970. LDA with a shrunken covariance: J. H. Friedman,
JASA 84, 1989."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.linalg import cho_factor, cho_solve, eigh

FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e5)  # penalty per item, of standardised features
SHRINKAGE = (
    1e-3,
    1e-2,
    0.03,
    0.1,
    0.3,
    0.6,
    0.9,
    0.999,
)  # share of the covariance that is replaced by its mean variance


def columns_of(features: Float32[np.ndarray, "item column"]) -> Float[np.ndarray, "item dim"]:
    """Standardised columns (constant ones go), or where there are more columns than items their coordinates
    on all principal axes: the same inner products in fewer numbers. No label is looked at."""
    x = np.asarray(features, np.float64)
    deviation = x.std(axis=0)
    keep = deviation > 1e-6 * np.maximum(np.abs(x.mean(axis=0)), 1e-6)
    x = (x[:, keep] - x[:, keep].mean(axis=0)) / deviation[keep]
    if not x.shape[1]:
        return np.zeros((len(x), 1))
    if x.shape[1] > len(x):
        values, vectors = eigh(x @ x.T, check_finite=False)
        at = values > 1e-9 * values[-1]
        x = vectors[:, at] * np.sqrt(values[at])
    result: np.ndarray = np.ascontiguousarray(x)
    return result


def group_folds(groups: Int[np.ndarray, " item"], seed: int, folds: int = FOLDS) -> Int[np.ndarray, " item"]:
    """A fold for every item: whole groups, the largest first, each to the fold with the fewest items; the
    seed decides among groups of one size."""
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold = np.zeros(folds, np.int64), np.zeros(len(sizes), np.int64)
    for group in order.tolist():
        fold[group] = int(filled.argmin())
        filled[fold[group]] += sizes[group]
    result: np.ndarray = fold[groups]
    return result


@dataclass(frozen=True)
class Parts:
    """The items of every fold: features x (item, dim), values y (item, target), their counts, sums and
    products."""

    x: Sequence[np.ndarray]
    y: Sequence[np.ndarray]
    scatter: np.ndarray  # (fold, dim, dim)
    cross: np.ndarray  # (fold, dim, target)
    x_sum: np.ndarray
    y_sum: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, fold: np.ndarray, folds: int) -> Parts:
        """From all items."""
        xs, ys = [x[fold == f] for f in range(folds)], [y[fold == f] for f in range(folds)]
        return cls(
            xs,
            ys,
            np.stack([a.T @ a for a in xs]),
            np.stack([a.T @ b for a, b in zip(xs, ys, strict=True)]),
            np.stack([a.sum(axis=0) for a in xs]),
            np.stack([b.sum(axis=0) for b in ys]),
            np.array([len(a) for a in xs]),
        )

    def without(self, out: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        """Centred scatter and cross products, means and count of all items but those of the folds `out`."""
        rest = [f for f in range(len(self.count)) if f not in out]
        n = int(self.count[rest].sum())
        mx, my = self.x_sum[rest].sum(axis=0) / n, self.y_sum[rest].sum(axis=0) / n
        scatter = self.scatter[rest].sum(axis=0) - n * np.outer(mx, mx)
        cross = self.cross[rest].sum(axis=0) - n * np.outer(mx, my)
        return scatter, cross, mx, my, n


def ridge_out_of_fold(
    x: Float[np.ndarray, "item dim"], y: Float[np.ndarray, "item target"], fold: Int[np.ndarray, " item"]
) -> tuple[Float[np.ndarray, "item target"], Float[np.ndarray, "fold target"]]:
    """Values of every item by a ridge that has not seen its fold, and the strength that each fold chose for
    each target.

    The strength has the smallest squared error over the inner folds, which are the other outer ones: a model
    for two folds left out is used for both. Strengths are chosen in float32, which halves the time; what is
    fitted with them is float64."""
    folds = int(fold.max()) + 1
    parts = Parts.of(x, y, fold, folds)
    inner = np.zeros(
        (folds, len(STRENGTHS), y.shape[1])
    )  # squared error of outer fold f, over its inner folds
    rough = [part.astype(np.float32) for part in parts.x]
    for f in range(folds):
        for g in range(f + 1, folds):
            for a, (weights, mx, my) in enumerate(_ridges(parts, (f, g), choosing=True)):
                offset = my - mx @ weights
                for held, outer in ((g, f), (f, g)):
                    x_held = rough[held] if weights.dtype == np.float32 else parts.x[held]
                    inner[outer, a] += np.square(parts.y[held] - (x_held @ weights + offset)).sum(axis=0)
    chosen = inner.argmin(axis=1)  # (fold, target)
    found = np.empty_like(y)
    for f in range(folds):
        predicted = np.empty((len(parts.x[f]), y.shape[1]))
        for a, (weights, mx, my) in enumerate(_ridges(parts, (f,), set(chosen[f].tolist()))):
            mine = chosen[f] == a
            if mine.any():
                predicted[:, mine] = (parts.x[f] - mx) @ weights[:, mine] + my[mine]
        found[fold == f] = predicted
    return found, np.array(STRENGTHS)[chosen]


def _ridges(
    parts: Parts, out: Sequence[int], wanted: set[int] | None = None, choosing: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Weights (dim, target) and means for every strength, learned without the folds `out`; zeros for those
    not wanted. `choosing`: in float32, where its rounding of the scatter is far below the penalty."""
    scatter, cross, mx, my, n = parts.without(out)
    for a, strength in enumerate(STRENGTHS):
        if wanted is not None and a not in wanted:
            yield np.zeros_like(cross), mx, my
            continue
        rough = choosing and np.trace(scatter) * np.finfo(np.float32).eps < 0.1 * strength * n
        yield _solved(scatter, cross, strength * n, np.float32 if rough else np.float64), mx, my


def _solved(scatter: np.ndarray, cross: np.ndarray, penalty: float, dtype: type[np.floating]) -> np.ndarray:
    """(scatter + penalty I) \\ cross, by Cholesky."""
    penalised = scatter.astype(dtype)
    penalised[np.diag_indices_from(penalised)] += dtype(penalty)
    factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
    found: np.ndarray = cho_solve(factor, cross.astype(dtype), check_finite=False)
    return found


def lda_out_of_fold(
    x: Float[np.ndarray, "item dim"], y: Float[np.ndarray, "item klass"], fold: Int[np.ndarray, " item"]
) -> Float[np.ndarray, "item klass"]:
    """Probabilities of every item's classes (`y` is one-hot) by an LDA that has not seen its fold; equal
    priors for the classes that its training set has, so that rare classes count too. Shrinkage has the best
    log loss, balanced over classes, over the inner folds."""
    folds = int(fold.max()) + 1
    parts = Parts.of(x, y, fold, folds)
    inner = np.zeros((folds, len(SHRINKAGE)))
    weight = 1 / np.maximum(y.sum(axis=0), 1)
    for f in range(folds):
        for g in range(f + 1, folds):
            for a, shares in enumerate(_ldas(parts, (f, g), (g, f))):
                for outer, held, share in ((f, g, shares[0]), (g, f, shares[1])):
                    right = (share * parts.y[held]).sum(axis=1)
                    inner[outer, a] -= (np.log(np.maximum(right, 1e-6)) * (parts.y[held] @ weight)).sum()
    found = np.empty_like(y)
    for f, best in enumerate(inner.argmin(axis=1).tolist()):
        for a, shares in enumerate(_ldas(parts, (f,), (f,))):
            if a == best:
                found[fold == f] = shares[0]
    return found


def _ldas(parts: Parts, out: Sequence[int], held: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """For every shrinkage the probabilities of the folds `held`, learned without the folds `out`."""
    rest = [f for f in range(len(parts.count)) if f not in out]
    counts = parts.y_sum[rest].sum(axis=0)
    present = counts > 0
    means = (parts.cross[rest].sum(axis=0)[:, present] / counts[present]).T  # (class, dim)
    n = int(parts.count[rest].sum())
    within = parts.scatter[rest].sum(axis=0) - (means.T * counts[present]) @ means
    within /= max(n - int(present.sum()), 1)
    level = max(float(np.trace(within)) / len(within), 1e-9)
    for share in SHRINKAGE:
        shrunk = (1 - share) * within
        shrunk[np.diag_indices_from(shrunk)] += share * level
        weights = cho_solve(cho_factor(shrunk, lower=True, check_finite=False), means.T, check_finite=False)
        offset = -0.5 * (means.T * weights).sum(axis=0)
        results = []
        for f in held:
            scores = parts.x[f] @ weights + offset
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            full = np.zeros((len(scores), len(present)))
            full[:, present] = scores / scores.sum(axis=1, keepdims=True)
            results.append(full)
        yield results


def linear_cka(layers: Sequence[Float[np.ndarray, "item dim"]]) -> Float[np.ndarray, "layer layer"]:
    """Linear centred kernel alignment of every two layers (S. Kornblith et al., "Similarity of neural network
    representations revisited", ICML 2019): 1 where they differ by a rotation and a factor."""
    kernels = []
    for x in layers:
        centred = np.asarray(x, np.float32) - x.mean(axis=0, dtype=np.float64).astype(np.float32)
        kernel = (centred @ centred.T).ravel()
        kernels.append(kernel / max(float(np.linalg.norm(kernel)), 1e-12))
    return np.array([[float(a @ b) for b in kernels] for a in kernels])
