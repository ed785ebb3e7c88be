"""Regression: numbers from one or several columns, learned on standardised targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.datasets import Dataset, Exclusion
from beatmeter.datasets.columns import number_of
from beatmeter.errors import ConfigError, DataError, RunError
from beatmeter.evaluation.metrics.values import mean_absolute_error, r2
from beatmeter.runtime.artifacts import require
from beatmeter.schema import Items, Track, ValuePredictions, as_values
from beatmeter.schema.records import items_of
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS, Choice, Output, State, Targets
from beatmeter.tasks.column import LEAST_GROUPS, ColumnTask


class RegressionTask(ColumnTask):
    """Values as standard deviations from the mean of the train split; a value that nobody knows counts for
    nothing."""

    most_columns = None
    legend = "error: mean absolute error in standard deviations; R2: share of the variance explained"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("error", "lower"), Choice("r2", "higher"), LOSS)

    def __init__(
        self, config: RunConfig, mean: Sequence[float] = (), deviation: Sequence[float] = ()
    ) -> None:
        super().__init__(config)
        units = config.task.units or ("",) * len(self.columns)
        if len(units) != len(self.columns):
            raise ConfigError(f"task.units names {len(units)} units for {len(self.columns)} columns")
        self.output = Output("value", self.columns, units=units)
        self.mean, self.deviation = np.asarray(mean, dtype=float), np.asarray(deviation, dtype=float)

    def label(self, dataset: Dataset) -> Dataset:
        known = (~np.isnan(self._numbers(dataset.tracks))).any(axis=1).tolist()
        reason = f"nothing is known of its {' or '.join(self.columns)}"
        unknown = [
            Exclusion.of(t, "unlabelled", reason) for t, k in zip(dataset.tracks, known, strict=True) if not k
        ]
        kept = tuple(t for t, k in zip(dataset.tracks, known, strict=True) if k)
        return replace(dataset, tracks=kept, excluded=(*dataset.excluded, *unknown))

    def usable(self, track: Track) -> str | None:
        return (
            None
            if any(not np.isnan(number_of(track, c)) for c in self.columns)
            else f"nothing is known of its {' or '.join(self.columns)}"
        )

    def _numbers(self, tracks: Sequence[Track]) -> Float[np.ndarray, "track name"]:
        """Values as they stand in the columns, nan where nothing is known."""
        return np.array(
            [[number_of(t, c) if c in t.extra else np.nan for c in self.columns] for t in tracks]
        ).reshape(len(tracks), -1)

    def settled(self, train: Sequence[Track]) -> Self:
        self.require_groups(train)
        values = self._numbers(train)
        for k, column in enumerate(self.columns):
            known = ~np.isnan(values[:, k])
            groups = len({t.group for t, labelled in zip(train, known, strict=True) if labelled})
            if groups < LEAST_GROUPS:
                raise DataError(
                    f"{column} is known of {int(known.sum())} tracks of {groups} groups in the train split: "
                    "too few to learn from"
                )
            if np.ptp(values[known, k]) == 0:
                raise DataError(
                    f"{column} is {values[known, k][0]:g} for all tracks of the train split: there is "
                    "nothing to learn",
                    "Choose another column.",
                )
        return type(self)(
            self.config, np.nanmean(values, axis=0).tolist(), np.nanstd(values, axis=0).tolist()
        )

    def restored(self, state: State) -> Self:
        return type(self)(self.config, state["constant"], state["deviation"])

    def targets(self, tracks: Sequence[Track]) -> Targets:
        values = (self._numbers(tracks) - self.mean) / self.deviation
        return Targets(np.nan_to_num(values), ~np.isnan(values))

    def study(self, train: Sequence[Track]) -> State:
        return {"constant": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def check_state(self, state: Any) -> None:
        require(state, {"constant": [float], "deviation": [float]}, "the state of the task")
        if not len(state["constant"]) == len(state["deviation"]) == len(self.columns):
            raise RunError(
                f"the state of the task has {len(state['constant'])} means for {len(self.columns)} columns"
            )
        if min(state["deviation"]) <= 0:
            raise RunError("the state of the task has a standard deviation that is not above zero")

    def loss(
        self,
        outputs: Float[Tensor, "track name"],
        targets: Float[Tensor, "track name"],
        mask: Bool[Tensor, "track name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Huber loss, or the squared error, over the values that are known."""
        each = nn.functional.huber_loss if self.config.task.error == "huber" else nn.functional.mse_loss
        losses = each(outputs, targets.to(outputs.dtype), reduction="none")
        return torch.where(mask, losses, 0.0).sum(), mask.sum()

    def decode(
        self,
        outputs: Float[np.ndarray, "track name"],
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ValuePredictions:
        return ValuePredictions(
            names=self.output.names,
            units=self.output.units,
            values=outputs.astype(float) * self.deviation + self.mean,
            targets=self._numbers(tracks),
            **items_of(tracks, split, meta={**(meta or {}), "task": self.config.task.name}),
        )

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_values(predictions)
        errors = mean_absolute_error(p.values / self.deviation, p.targets / self.deviation)
        explained = r2(p.values, p.targets)
        return {
            "error": float(np.nanmean(errors)),
            "r2": float(np.nanmean(explained)) if not np.isnan(explained).all() else 0.0,
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"error {figures['error']:.3f} standard deviations, R2 {figures['r2']:.3f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"error": f"{figures['error']:.3f}", "R2": f"{figures['r2']:+.3f}"}
