"""Corrected labels applied to predictions, so that both label sets can be shown side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beatmeter.datasets.corrections import LabelFile
from beatmeter.datasets.labels import parse_labels
from beatmeter.errors import DataError, nearest
from beatmeter.schema import ClassPredictions


@dataclass(frozen=True)
class Corrections(LabelFile):
    """A file of corrected labels, of either form, and what it makes of predictions."""

    def apply(self, p: ClassPredictions) -> tuple[ClassPredictions, list[str]]:
        """`p` under the corrected labels, without what is to be left out, and the ids that were touched.

        Raises DataError for a label that is no class of `p`, and when not one id occurs in it.
        """
        touched = [id for id in dict.fromkeys(p.ids) if id in self.labels]
        if not touched:
            stranger = next(iter(self.labels), "")
            hint = nearest(stranger, p.ids) if stranger and len(p) else ""
            raise DataError(
                f"{self.path} names no item of these predictions (split {p.split!r})",
                hint if hint.startswith("Did") else "",
            )
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
        corrected = replace(
            p, targets=targets, primary=primary, meta={**p.meta, "corrections": self.path.name}
        )
        return corrected.take(np.flatnonzero(kept)), touched
