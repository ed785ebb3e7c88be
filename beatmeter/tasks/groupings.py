"""The second output of meter: which grouping a bar has, given its class.

One softmax for each class over the groupings that `beatmeter.datasets.groupings` tells apart in it. A track
whose column `grouping` names one of them teaches that of its primary class; the others teach nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from beatmeter.datasets.groupings import GROUPINGS, grouping_of, read_grouping
from beatmeter.schema import Track
from beatmeter.tasks.base import Targets

COLUMN = "grouping"


class Groupings:
    """The groupings of these meters; of none without any."""

    def __init__(self, meters: Sequence[str]) -> None:
        self.names = tuple((meter, name) for meter in meters for name in GROUPINGS.get(meter, ()))
        owners = np.array([meter for meter, _ in self.names])
        self._together = owners[:, None] == owners[None, :]  # (name, name) of one class

    @property
    def texts(self) -> tuple[str, ...]:
        """The groupings alone, as they are written."""
        return tuple(name for _, name in self.names)

    def targets(self, tracks: Sequence[Track]) -> Targets:
        """(track, name), 1 for the grouping of a track; the mask is where it is one of several."""
        values = np.zeros((len(tracks), len(self.names)))
        mask = np.zeros(values.shape, dtype=bool)
        for row, track in enumerate(tracks):
            name = grouping_of(track.primary or "", read_grouping(track.extra.get(COLUMN, "")))
            at = self.names.index((track.primary or "", name)) if name and self.names else -1
            if at >= 0:
                values[row, at] = 1
                mask[row] = self._together[at]
        return Targets(values, mask)

    def losses(
        self,
        outputs: Float[Tensor, "track name"],
        targets: Float[Tensor, "track name"],
        mask: Bool[Tensor, "track name"],
    ) -> Float[Tensor, " track"]:
        """Cross-entropy among the groupings of a track's class; 0 for a track whose grouping is unknown."""
        if not self.names:
            return outputs.new_zeros(len(outputs))
        known = mask.any(dim=1)
        inside = torch.where(mask | ~known[:, None], outputs, outputs.new_full((), -1e9))
        return -(inside.log_softmax(dim=1) * targets).sum(dim=1) * known

    def decode(self, outputs: Float[np.ndarray, "track name"]) -> list[Mapping[str, Mapping[str, float]]]:
        """Probabilities by class and grouping, for every track."""
        found: list[Mapping[str, Mapping[str, float]]] = []
        for row in outputs:
            by_class: dict[str, dict[str, float]] = {}
            powers = np.exp(row - row.max()) if len(row) else row
            for at, (meter, name) in enumerate(self.names):
                total = float(powers[self._together[at]].sum())
                by_class.setdefault(meter, {})[name] = float(powers[at]) / max(total, 1e-300)
            found.append(by_class)
        return found
