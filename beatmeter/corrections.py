"""Corrected labels: a CSV file of ids and labels, applied to predictions, so that both label sets can be shown side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from beatmeter.datasets.labels import parse_labels
from beatmeter.errors import DataError, nearest
from beatmeter.schema import Predictions


@dataclass(frozen=True)
class Corrections:
    """What a corrections file says: the label cell of every id, "" where the item is to be left out, and its reason."""

    path: Path
    labels: Mapping[str, str]
    reasons: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Corrections:
        """Read a CSV file with the columns `id`, `label` and, if there, `reason`.

        A label is written as in datasets: `3`, `3,4` or `3:0.7,4:1`; empty leaves the item out. Raises DataError with file and line.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise DataError(f"there is no corrections file {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}") from None
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in ("id", "label") if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}", "A corrections file has the columns id, label and, if you like, reason.")
        labels: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for row in reader:
            id, label = row["id"] or "", row["label"] or ""
            if not id or id in labels or None in row:
                wrong = "has an empty id" if not id else f"names {id!r} again" if id in labels else "has more cells than the header"
                raise DataError(f"{path}:{reader.line_num}: this line {wrong}", 'Labels that hold commas must be quoted: "3,4".')
            labels[id], reasons[id] = label.strip(), (row.get("reason") or "").strip()
        return cls(path, labels, reasons)

    def apply(self, p: Predictions) -> tuple[Predictions, list[str]]:
        """`p` under the corrected labels, without what is to be left out, and the ids that were touched.

        Raises DataError for a label that is no class of `p`, and when not one id occurs in it.
        """
        touched = [id for id in dict.fromkeys(p.ids) if id in self.labels]
        if not touched:
            stranger = next(iter(self.labels), "")
            hint = nearest(stranger, p.ids) if stranger and len(p) else ""
            raise DataError(f"{self.path} names no item of these predictions (split {p.split!r})", hint if hint.startswith("Did") else "")
        targets, primary = p.targets.copy(), p.primary.copy()
        for i, id in enumerate(p.ids):
            label = self.labels.get(id)
            if label:
                try:
                    weights, main = parse_labels(label, p.classes)
                except DataError as error:
                    raise DataError(f"{self.path}: the label of {id!r}: {error}") from None
                targets[i] = [weights.get(c, 0.0) for c in p.classes]
                primary[i] = p.classes.index(main)
        kept = np.array([self.labels.get(id, "kept") != "" for id in p.ids])
        corrected = replace(p, targets=targets, primary=primary, meta={**p.meta, "corrections": self.path.name})
        return corrected.take(np.flatnonzero(kept)), touched
