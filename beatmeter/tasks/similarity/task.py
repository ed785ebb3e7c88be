"""Similarity: vectors in which tracks that belong together lie near each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.datasets import Dataset, Exclusion
from beatmeter.datasets.columns import require_columns, text_of
from beatmeter.errors import ConfigError, DataError, RunError
from beatmeter.evaluation.similarity import factor_of, judge
from beatmeter.runtime.artifacts import require
from beatmeter.schema import Embeddings, FeatureSpec, Finding, Items, Track, as_embeddings
from beatmeter.schema.records import items_of
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS, Choice, Output, State, Targets, Truth
from beatmeter.tasks.column import ColumnTask
from beatmeter.tasks.similarity.head import EmbeddingHead
from beatmeter.tasks.similarity.losses import LOSSES
from beatmeter.tasks.similarity.relations import ByLabel, Given, Step, steps_by_label, steps_by_rows

CROPS = "crops"


class SimilarityTask(ColumnTask):
    """One unit vector a track; tracks with one value of `task.column` belong together, by default the
    versions of a `work`. `task.pairs` may say what is learned from instead: two crops of one track, or given
    pairs or triplets. Validation and test are judged by the column always."""

    separable = False
    default_columns = ("work",)
    selection: ClassVar[tuple[Choice, ...]] = (Choice("map", "higher"), Choice("hit_at_1", "higher"), LOSS)
    legend = (
        "mAP, hit@1: does a validation track find the others of its label; cosine: mean of\nall pairs; "
        "hubness: above 1 a few tracks are near to everything"
    )

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        t = config.task
        self.output = Output("embedding", tuple(f"v{k}" for k in range(t.dim)))
        room = config.training.batch * config.training.accumulation
        if room < 2 * t.per_label:
            raise ConfigError(
                f"a step of {room} tracks has no room for two labels with {t.per_label} tracks each",
                f"--set training.batch={2 * t.per_label}",
            )
        if t.pairs == CROPS and not config.augment.crop:
            raise ConfigError(
                "task.pairs = crops learns from two crops of a track, and augment.crop is 0",
                "--set augment.crop=1",
            )

    def label(self, dataset: Dataset) -> Dataset:
        require_columns(dataset.tracks, [name for name, _ in self._factors], "task.factors")
        if self.config.task.pairs:  # what has no label can still be learned from
            return dataset
        unknown = [
            Exclusion.of(t, "unlabelled", str(self.usable(t)))
            for t in dataset.tracks
            if self.usable(t) is not None
        ]
        kept = tuple(t for t in dataset.tracks if self.usable(t) is None)
        return replace(dataset, tracks=kept, excluded=(*dataset.excluded, *unknown))

    def usable(self, track: Track) -> str | None:
        if self.config.task.pairs or self._label(track):
            return None
        return f"nothing is known of its {self.columns[0]}"

    @property
    def _factors(self) -> list[tuple[str, float]]:
        return [factor_of(text.strip().lower()) for text in self.config.task.factors]

    def _label(self, track: Track) -> str:
        return text_of(track, self.columns[0])

    def settled(self, train: Sequence[Track]) -> Self:
        self.sampler(self.examples(train), np.random.default_rng(0), 2 * self.config.task.per_label)
        return self

    def examples(self, train: Sequence[Track]) -> list[Track]:
        """Every track twice where two crops of it are compared."""
        return [*train, *train] if self.config.task.pairs == CROPS else list(train)

    def targets(self, tracks: Sequence[Track]) -> Targets:
        """No target is a track's own: see `truth`."""
        return Targets(np.zeros((len(tracks), 0)), np.zeros((len(tracks), 0), bool))

    def truth(self, tracks: Sequence[Track], device: torch.device) -> Truth:
        given = self._given()
        ids = [t.id for t in tracks]
        if given is not None and given.inside(ids):
            return given.relations(ids, [t.group for t in tracks])
        twice = len(set(ids)) < len(ids)
        return ByLabel.of_names(ids if twice else [self._label(t) for t in tracks])

    def _given(self) -> Given | None:
        pairs = self.config.task.pairs
        return Given.read(Path(pairs)) if pairs not in ("", CROPS) else None

    def study(self, train: Sequence[Track]) -> State:
        labels = [self._label(t) for t in train]
        known = {label for label in labels if label}
        return {"tracks": len(train), "labels": len(known)}

    def check_state(self, state: Any) -> None:
        require(state, {"tracks": int, "labels": int}, "the state of the task")
        if state["tracks"] < state["labels"]:
            raise RunError(f"the state of the task has {state['labels']} labels of {state['tracks']} tracks")

    def remarks(self, state: State, train: Sequence[Track]) -> list[Finding]:
        if self.config.task.pairs:
            return []
        labels = [self._label(t) for t in train]
        alone = sum(labels.count(label) == 1 for label in set(labels))
        if not alone:
            return []
        text = f"{alone} of {len(set(labels))} values of {self.columns[0]} have one training track: it is "
        return [Finding("labels of one track", "note", text + "only told apart from others", {"n": alone})]

    def head(self, spec: FeatureSpec) -> nn.Module:
        return EmbeddingHead(spec, self.config.head, len(self.output.names))

    def loss(
        self,
        outputs: Float[Tensor, "track name"],
        targets: Float[Tensor, "track track"],
        mask: Bool[Tensor, "track track"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """One of LOSSES over the pairs of the step."""
        t = self.config.task
        return LOSSES[t.pair_loss](outputs, torch.where(mask, targets, 0.0).to(outputs.device), t)

    def sampler(self, train: Sequence[Track], rng: np.random.Generator, size: int) -> list[Step]:
        """Steps that each hold a positive: see `steps_by_label`, `steps_by_rows`."""
        given, ids = self._given(), [t.id for t in train]
        if given is not None:
            rows = given.inside(ids)
            if not rows:
                raise DataError(
                    f"{given.path}: none of {len(given.rows)} rows has all of its tracks in the train split",
                    "Name tracks by their ids; pairs across splits are not learned from.",
                )
            return steps_by_rows(rows, rng, size)
        labels = ids if self.config.task.pairs == CROPS else [self._label(t) for t in train]
        return steps_by_label(labels, rng, size, self.config.task.per_label)

    def decode(
        self,
        outputs: Float[np.ndarray, "track name"],
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        n = len(tracks)
        about = {**(meta or {}), "task": self.config.task.name, "column": self.columns[0]}
        if self._factors:
            about["factors"] = [
                {"column": name, "within": share, "values": {t.id: text_of(t, name) for t in tracks}}
                for name, share in self._factors
            ]
        return Embeddings(
            vectors=np.asarray(outputs, dtype=np.float32),
            labels=tuple(self._label(t) for t in tracks),
            chroma=tuple(np.zeros((0, 12), np.float32) for _ in range(n)),
            views=np.zeros((n, 0), np.float32),
            **items_of(tracks, split, meta=about),
        )

    def figures(self, predictions: Items) -> dict[str, Any]:
        found = judge(as_embeddings(predictions), replicates=0)
        return {
            "map": found.metrics["mAP"].value,
            "hit_at_1": found.metrics["hit@1"].value,
            "mean_cosine": found.mean_cosine,
            "hubness": found.hubness,
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"mAP {figures['map']:.3f}, hit@1 {figures['hit_at_1']:.3f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {
            "mAP": f"{figures['map']:.3f}",
            "hit@1": f"{figures['hit_at_1']:.3f}",
            "cosine": f"{figures['mean_cosine']:+.2f}",
            "hubness": f"{figures['hubness']:.1f}",
        }
