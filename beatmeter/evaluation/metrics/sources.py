"""Where a clip comes from can betray its class: accuracy within sources, and what the source alone would
answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.evaluation.metrics.checks import Array, one_hot
from beatmeter.evaluation.metrics.intervals import Estimate, group_index, share
from beatmeter.evaluation.metrics.primary import correct
from beatmeter.schema import ClassPredictions

FEW_GROUPS = 10


@dataclass(frozen=True)
class SourceRow:
    """One source: its labelled items, the accuracy of the model and of the source alone on them, and the
    share of its most frequent class."""

    source: str
    items: int
    accuracy: Estimate
    source_only: float
    majority: str
    majority_share: float


def source_only(predictions: ClassPredictions, reference: ClassPredictions | None = None) -> Array:
    """(item,) 1.0 where the most frequent primary class of the item's source is right, nan without a label.

    The classes are counted in `reference` (the training or validation split) when given; otherwise in these
    predictions, which favours the source a little. A source of fewer than ten groups would vouch for itself:
    there the item's own group is left out. A source that was never seen answers the most frequent class of
    all.
    """
    p = predictions
    counted = reference if reference is not None else p
    c = len(p.classes)
    if reference is not None and reference.classes != p.classes:
        order = [reference.classes.index(name) if name in reference.classes else -1 for name in p.classes]
        truth = np.column_stack(
            [one_hot(reference.primary, len(reference.classes)), np.zeros(len(reference))]
        )[:, order]
    else:
        truth = one_hot(counted.primary, c)
    names = sorted({*counted.sources, *p.sources})
    at = {name: i for i, name in enumerate(names)}
    totals = np.zeros((len(names), c))
    np.add.at(totals, [at[s] for s in counted.sources], truth)
    here = totals[[at[s] for s in p.sources]]
    everywhere = np.broadcast_to(totals.sum(axis=0), here.shape)
    if reference is None:
        member = group_index(p.groups)
        cell = (
            np.array([at[s] for s in p.sources], dtype=np.int64) * (int(member.max(initial=0)) + 1) + member
        )
        _, cell = np.unique(cell, return_inverse=True)
        own = np.zeros((int(cell.max(initial=-1)) + 1, c))
        np.add.at(own, cell, truth)
        everyone = np.zeros((int(member.max(initial=-1)) + 1, c))
        np.add.at(everyone, member, truth)
        groups_of = {
            name: len({g for g, s in zip(p.groups, p.sources, strict=True) if s == name}) for name in names
        }
        small = np.array([groups_of[s] < FEW_GROUPS for s in p.sources])[:, None]
        here, everywhere = (
            np.where(small, here - own[cell], here),
            np.where(small, everywhere - everyone[member], everywhere),
        )
    counts = np.where(here.any(axis=1, keepdims=True), here, everywhere)
    result: Array = np.where(p.primary < 0, np.nan, (counts.argmax(axis=1) == p.primary).astype(np.float64))
    return result


def by_source(predictions: ClassPredictions, reference: ClassPredictions | None = None) -> list[SourceRow]:
    """One row per source that has labelled items, largest first."""
    p = predictions
    right, baseline = correct(p.scores, p.primary), source_only(p, reference)
    rows = []
    for name in sorted(set(p.sources)):
        mine = np.array([s == name for s in p.sources]) & (p.primary >= 0)
        if mine.any():
            counts = np.bincount(p.primary[mine], minlength=len(p.classes))
            rows.append(
                SourceRow(
                    name,
                    int(mine.sum()),
                    share(np.where(mine, right, np.nan), p.groups),
                    float(baseline[mine].mean()),
                    p.classes[int(counts.argmax())],
                    float(counts.max() / mine.sum()),
                )
            )
    return sorted(rows, key=lambda r: (-r.items, r.source))
