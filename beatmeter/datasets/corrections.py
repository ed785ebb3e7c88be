"""Corrected labels: a CSV file of ids and labels, as a reviewer filled it in, applied to a dataset.

Two forms, told apart by the column `new label`:

    id,label,new label,comment      of a review: an empty cell is undecided, `keep`, `drop`, or the new label
    id,label,reason                 the corrected labels themselves; an empty cell leaves the clip out

Labels are written as everywhere (`3`, `3,4`, `3:0.7,4:1`). In a review, `label` is what the clip was labelled
when the reviewer listened: a dataset that says something else by now is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from beatmeter.datasets.dataset import LABEL_PROBLEM, Dataset, Exclusion
from beatmeter.datasets.decisions import DROP, KEEP, KINDS, DecisionTable, strangers
from beatmeter.datasets.labels import Labels, format_labels, parse_labels
from beatmeter.errors import DataError, shown
from beatmeter.runtime.display import count
from beatmeter.runtime.paths import StrPath
from beatmeter.schema import Track

ORIGINAL = "original label"  # key of Track.extra: the label before it was corrected; empty when it had none
DECISION = "new label"  # the column that a reviewer fills in


@dataclass(frozen=True)
class LabelFile:
    """What a file of corrections says: the new label of every id, "" where the clip is to be left out, and
    the reason.

    `reviewed` are the labels that a review began from, by id; `kept` the ids whose label the reviewer kept.
    """

    path: Path
    labels: Mapping[str, str]
    reasons: Mapping[str, str]
    lines: Mapping[str, int] = field(default_factory=dict)
    reviewed: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    sha256: str = ""

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """Read a file of either form. Raises DataError with file and line."""
        return cls.of(DecisionTable.read(path))

    @classmethod
    def of(cls, table: DecisionTable) -> Self:
        """What a table says of labels. Raises DataError with file and line."""
        path = table.path
        if table.of_beats:
            hint = "Beats are corrected where a data set is opened: data check, train, evaluate."
            raise DataError(f"{shown(path)} is a review of beats, and labels are corrected here", hint)
        table.require_columns(
            "id",
            "label",
            hint="A corrections file has the columns id, label and new label (of a review), or id, label and "
            "reason.",
        )
        review = DECISION in table.columns
        labels, reasons, lines, before = (
            dict[str, str](),
            dict[str, str](),
            dict[str, int](),
            dict[str, str](),
        )
        kept: set[str] = set()
        for row in table.rows:
            id, label = row.cells["id"], row.text("label")
            if id in lines:
                raise DataError(
                    f"{shown(path)}:{row.line}: this line names {id!r} again",
                    'Labels that hold commas must be quoted: "3,4".',
                )
            lines[id] = row.line
            reasons[id] = row.text("comment" if review else "reason")
            decision = row.text(DECISION) if review else label
            if review:
                before[id] = label
                if not decision:
                    continue
                if decision.lower() in KEEP:
                    kept.add(id)
                    continue
                decision = "" if decision.lower() in DROP else decision
            labels[id] = decision
        return cls(path, labels, reasons, lines, before, frozenset(kept), table.sha256)

    def place(self, id: str) -> str:
        """`file:line` of an id."""
        return f"{shown(self.path.name)}:{self.lines.get(id, 1)}"


def apply_corrections(dataset: Dataset, file: LabelFile, classes: Sequence[str]) -> Dataset:
    """The dataset under the corrected labels; what is to be left out is excluded (kind `correction`).

    A track whose label changed has the one of its table in `extra[ORIGINAL]`; `Dataset.corrections` says what
    each file did. Raises DataError for a label that is no class, for one that the dataset has changed since
    the review, and when the file names nothing of this dataset.
    """
    by_id = {t.id: t for t in dataset.tracks}
    named = [*file.labels, *file.kept]
    foreign = strangers(file.path, named, dataset)
    changed: dict[str, Track] = {}
    dropped: list[Exclusion] = []
    changes: dict[str, list[str]] = {}
    for id in (id for id in named if id in by_id):
        track = by_id[id]
        _require_as_reviewed(track, file, classes)
        if id in file.kept:
            continue
        if not file.labels[id]:
            reason = file.reasons.get(id, "")
            dropped.append(
                Exclusion.of(
                    track, "correction", f"left out by {file.place(id)}" + (f": {reason}" if reason else "")
                )
            )
            continue
        new, old = _parse(file, id, file.labels[id], classes), written(track)
        if (new.weights, new.primary) != (dict(track.labels), track.primary):
            extra = {ORIGINAL: old, **{k: v for k, v in track.extra.items() if k != LABEL_PROBLEM}}
            changed[id] = replace(track, labels=new.weights, primary=new.primary, extra=extra)
            changes[id] = [old, written(changed[id])]
    done: dict[str, Any] = {
        "file": shown(file.path),
        "sha256": file.sha256,
        "relabelled": len(changed),
        "left out": len(dropped),
        "kept": sum(id in by_id for id in file.kept),
        "not here": foreign,
        "labels": changes,
    }
    tracks = tuple(changed.get(t.id, t) for t in dataset.tracks)
    return replace(dataset, tracks=tracks, corrections=(*dataset.corrections, done)).without(dropped)


def told(done: Mapping[str, Any]) -> str:
    """What one file of `Dataset.corrections` did: "1 relabelled, 0 left out, 2 kept", or so of beats."""
    names = ("relabelled", "left out", "kept") if "relabelled" in done else (*KINDS, "kept")
    return ", ".join(f"{done[name]} {name}" for name in names)


def corrected(corrections: Sequence[Mapping[str, Any]]) -> str:
    """How much all files changed: "1 label corrected", "3 beats corrected"; nothing without files."""
    labels = [c["relabelled"] for c in corrections if "relabelled" in c]
    beats = [sum(c[kind] for kind in KINDS) for c in corrections if "relabelled" not in c]
    kinds = ((labels, "label"), (beats, "beat"))
    return ", ".join(f"{count(sum(n), noun)} corrected" for n, noun in kinds if n)


def written(track: Track) -> str:
    """The label of a track as a table would say it; empty when it has none."""
    return format_labels(track.labels, track.primary) if track.primary else ""


def _require_as_reviewed(track: Track, file: LabelFile, classes: Sequence[str]) -> None:
    then = file.reviewed.get(track.id, "")
    if then and _parse(file, track.id, then, classes).weights != dict(track.labels):
        what = (
            f"{file.place(track.id)}: {track.id!r} was labelled {then} at the review, it is "
            f"{written(track) or 'unlabelled'} now"
        )
        raise DataError(
            what, "Give the corrections that the review was made under before this one, or review it again."
        )


def _parse(file: LabelFile, id: str, label: str, classes: Sequence[str]) -> Labels:
    try:
        return parse_labels(label, classes)
    except DataError as error:
        hint = error.hint or f"Write a class, several ({','.join(classes[:2])}), {KEEP[0]} or {DROP[0]}."
        raise DataError(f"{file.place(id)}: the label of {id!r}: {error.what}", hint) from None
