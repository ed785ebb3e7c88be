"""What a report is about: a run folder, or a predictions file made anywhere."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from beatmeter.errors import BeatmeterError, DataError, EvaluationError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.corrections import Corrections
from beatmeter.evaluation.diagnostics import LIMITS, Limits
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.evaluation.report.evaluation import Evaluation
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import named, read_json, read_text, require
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import ClassPredictions


@dataclass(frozen=True)
class Subject:
    """What a report is about: an evaluation, and what a run folder adds to it where there is one."""

    name: str
    evaluation: Evaluation
    others: tuple[ClassPredictions, ...] = ()  # other splits, for the data card
    history: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    excluded: Sequence[Mapping[str, str]] = ()
    calibration: Calibration | None = None
    kept: int | None = None  # the epoch whose weights were kept
    corrected: Evaluation | None = None

    @classmethod
    def read(
        cls,
        where: StrPath,
        split: str | None = None,
        limits: Limits = LIMITS,
        seed: int = 0,
        report: Callable[[str], object] = lambda text: None,
    ) -> Subject:
        """From a run folder or a predictions file. Thresholds come from the validation split where there is
        one. `report` is told what had to be left out."""
        where = as_path(where)
        predictions = open_predictions(where, split)
        if not where.is_dir():
            return cls(
                str(predictions.meta.get("run", where.name)),
                Evaluation.of(predictions, _validation(where, predictions), limits, seed),
            )
        folder = RunFolder(where)
        others = [
            open_predictions(where, other)
            for other in ("train", "val", "test")
            if folder.predictions(other).exists() and other != predictions.split
        ]
        validation = next((p for p in others if p.split == "val"), None)
        file, calibration = where / "calibration.json", None
        if os.path.lexists(file):
            calibration = Calibration.load(file)
            with named(file, EvaluationError):
                calibration.require_classes(predictions.classes)
        return cls(
            where.resolve().name,
            Evaluation.of(predictions, validation, limits, seed),
            tuple(others),
            folder.read_log(report),
            folder.about(),
            read_text(folder.config_file) if folder.config_file.exists() else "",
            _rows(folder.excluded_file),
            calibration,
            kept_epoch(folder),
        )

    def corrected_by(self, corrections: StrPath, limits: Limits = LIMITS, seed: int = 0) -> Subject:
        """The same subject with an evaluation under corrected labels beside the original one."""
        found, _ = Corrections.read(corrections).apply(self.evaluation.predictions)
        return replace(self, corrected=Evaluation.of(found, self.evaluation.validation, limits, seed))


def _validation(file: Path, predictions: ClassPredictions) -> ClassPredictions | None:
    """The validation lines of a file that holds several splits."""
    if predictions.split in ("", "val"):
        return None
    try:
        found = open_predictions(file, "val")
    except BeatmeterError:
        return None
    return found if found.split == "val" and set(found.ids) - set(predictions.ids) else None


def kept_epoch(run: RunFolder) -> int | None:
    """The epoch whose weights a run has kept, as its description names it; None where there is none. Raises
    RunError."""
    path = run.best.with_suffix(".json")
    if not os.path.lexists(path):
        return None
    value = read_json(path)
    require(value, {"epoch": int}, str(path))
    return int(value["epoch"])


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of excluded.csv, "" for cells that are not there."""
    if not os.path.lexists(path):
        return []
    try:
        rows = csv.DictReader(io.StringIO(read_text(path, DataError), newline=""), restval="", strict=True)
        return [{name: str(cell) for name, cell in row.items() if name is not None} for row in rows]
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV: {error}", "Delete it to do without.") from None
