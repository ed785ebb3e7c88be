"""Packing trained models: small copies of runs and ensembles, to hand them on or to ship them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from beatmeter.errors import RunError, nearest, shown
from beatmeter.evaluation.metrics import estimate, metric
from beatmeter.evaluation.metrics.families import estimate_of, metrics_of
from beatmeter.evaluation.records import open_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning.checkpoints import handed_on
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_bytes, write_json
from beatmeter.runtime.paths import StrPath, as_path, as_paths
from beatmeter.schema import Marks, as_classes
from beatmeter.serving.models import CHOICE, INDEX, EnsembleFolder, is_model

BEST = "best.safetensors"
KEPT = ("config.toml", BEST, "calibration.json", "run.json", "ensemble.json", "members.json")
LARGEST_MODEL = 8 << 30  # bytes of a checkpoint that is handed on
CURVES = "structure"  # key of the index for models that give curves
MEASURED = (CHOICE, "accuracy", "log_loss")


def pack(
    runs: StrPath | Iterable[StrPath], out: StrPath, validation: str = "val", default: str | None = None
) -> dict[str, Any]:
    """Copy what `predict` needs of finished models to `out`, each under its own name, and make one the
    default: `default`, else the best on validation.

    `validation` names the predictions of models of meter that decide: models that were trained on several
    sets are compared on one. Members of an ensemble must be packed with it. A model of beats is packed beside
    them, for `structure`. Returns the index. Raises RunError for a default that is not among them.
    """
    runs, out = as_paths(runs), as_path(out)
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise RunError("two models have the same name", "Rename one of the folders.")
    if default is not None and default not in names:
        raise RunError(f"the default {default!r} is not packed", nearest(default, names))
    for name, run in zip(names, runs, strict=True):
        _require_packable(name, run, runs, out)
    index: dict[str, Any] = {"default": None, "models": {}}
    for name, run in zip(names, runs, strict=True):
        of_meter = EnsembleFolder(run).exists() or RunFolder.open(run).config().task.name == "meter"
        judged = open_records(run, validation if of_meter else "val")
        if isinstance(judged, Marks):
            index.setdefault(CURVES, {})[name] = {"clips": len(judged), "validation": _beats(judged)}
            _copy(run, out / name)
            atomic.write_bytes(out / name / BEST, handed_on(run / BEST, half="head."))
            continue
        judged = as_classes(judged)
        measured = {key: estimate(metric(key), judged) for key in MEASURED}
        figures = {key: [round(x, 4) for x in (e.value, e.low, e.high)] for key, e in measured.items()}
        index["models"][name] = {"clips": len(judged), "validation": figures}
        _copy(run, out / name)
        folder = EnsembleFolder(run)
        if folder.exists():
            EnsembleFolder(out / name).write_members(
                {m: out / run.resolve().name for m, run in folder.runs().items()}, folder.calibrated
            )
    if not index["models"]:
        raise RunError(
            "none of these models hears meter, and one of those that ship must", "Pack it with them."
        )
    best = max(index["models"], key=lambda n: index["models"][n]["validation"][CHOICE][0])
    index["default"] = default or best
    write_json(out / INDEX, index)
    return index


def _beats(validation: Marks) -> dict[str, list[float]]:
    """The metrics of beats with their intervals."""
    found = ((m.name, estimate_of(m, validation)) for m in metrics_of(validation))
    return {name: [round(x, 4) for x in (e.value, e.low, e.high)] for name, e in found}


def _copy(run: Path, out: Path) -> None:
    """What is kept of a run; it does not say where it was made."""
    for file in KEPT:
        if file == "run.json" and (run / file).exists():
            about = {k: v for k, v in RunFolder(run).about().items() if k != "places"}
            write_json(out / file, about, sort_keys=True)
        elif file == BEST and (run / file).exists():
            atomic.write_bytes(out / file, handed_on(run / file))
        elif (run / file).exists():
            atomic.write_bytes(out / file, read_bytes(run / file, largest=LARGEST_MODEL))
        else:
            (out / file).unlink(missing_ok=True)


def _require_packable(name: str, run: Path, runs: Sequence[Path], out: Path) -> None:
    """Nothing is written before all of this holds: what there is to pack is whole, and nobody's run is
    written over."""
    if not run.is_dir():
        raise RunError(
            f"there is no folder {shown(run)}", "Check the path; runs are made by `beatmeter train`."
        )
    if not is_model(run):
        raise RunError(
            f"{run} is neither a run folder nor an ensemble", "A run is made by `beatmeter train`."
        )
    strangers = (
        sorted(p.name for p in (out / name).iterdir() if p.name not in (*KEPT, "README.md"))
        if (out / name).exists()
        else []
    )
    if strangers:
        raise RunError(
            f"{out / name} is more than a packed model: it holds {strangers[0]}", "Choose another --out."
        )
    folder = EnsembleFolder(run)
    packed = [r.resolve() for r in runs]
    away = (
        [member for member, run in folder.runs().items() if run.resolve() not in packed]
        if folder.exists()
        else []
    )
    if away:
        raise RunError(f"{name} joins {away[0]}, which is not packed", "Pack its members with it.")
