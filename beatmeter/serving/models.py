"""Models as small folders: the ones that ship with the package, ensembles of runs, and packing a run to hand
it on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beatmeter.errors import RunError, nearest, shown
from beatmeter.evaluation.comparison.ensemble import AGAIN, Ensemble
from beatmeter.evaluation.metrics import estimate, metric
from beatmeter.evaluation.metrics.families import estimate_of, metrics_of
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.evaluation.records import open_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_bytes, read_json, require, write_json
from beatmeter.runtime.paths import StrPath, as_path, as_paths
from beatmeter.schema import Marks

SHIPPED = Path(__file__).resolve().parents[1] / "models"
INDEX = "models.json"
UNPACKED = "Install beatmeter again, or run `beatmeter models pack`."
BEST = "best.safetensors"
KEPT = ("config.toml", BEST, "calibration.json", "run.json", "ensemble.json", "members.json")
CHOICE = "balanced_accuracy"  # on validation: what makes a model the default
LARGEST_MODEL = 8 << 30  # bytes of a checkpoint that is handed on
CURVES = "structure"  # key of the index for models that give curves
MEASURED = (CHOICE, "accuracy", "log_loss")


@dataclass(frozen=True)
class EnsembleFolder:
    """What `beatmeter ensemble` writes: `ensemble.json`, and `members.json` with the run folders it joins."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", as_path(self.path))

    def exists(self) -> bool:
        return (self.path / "ensemble.json").exists()

    def ensemble(self) -> Ensemble:
        return Ensemble.load(self.path / "ensemble.json")

    @property
    def calibrated(self) -> bool:
        """Whether members are calibrated before they are joined."""
        return bool(self._members()["calibrated"])

    def runs(self) -> dict[str, Path]:
        """The folder of every member, by name."""
        runs = self._members()["runs"]
        missing = [name for name in self.ensemble().members if name not in runs]
        if missing:
            raise RunError(
                f"{self.path / 'members.json'} does not say where the member {missing[0]!r} lies", AGAIN
            )
        return {name: self.path / run for name, run in runs.items()}

    def write_members(self, runs: Mapping[str, Path], calibrated: bool) -> None:
        """Remember where the members are, seen from here, so that both can be moved together."""
        paths = {name: os.path.relpath(run.resolve(), self.path.resolve()) for name, run in runs.items()}
        write_json(self.path / "members.json", {"runs": paths, "calibrated": calibrated})

    def _members(self) -> dict[str, Any]:
        file = self.path / "members.json"
        if not os.path.lexists(file):
            raise RunError(
                f"{self.path} joins predictions that were made elsewhere: it cannot hear audio",
                "Join run folders: beatmeter ensemble RUN RUN.",
            )
        value = read_json(file, RunError, AGAIN)
        require(value, {"runs": {"*": str}, "calibrated": bool}, str(file), RunError, AGAIN)
        return value


def is_model(path: StrPath) -> bool:
    """Whether a path is a run folder or the folder of an ensemble."""
    return RunFolder(as_path(path)).config_file.exists() or EnsembleFolder(as_path(path)).exists()


def hears(path: StrPath) -> bool:
    """Whether there are weights that can hear audio: a run that was trained, or an ensemble of such runs.
    Folders that hold only predictions have none."""
    folder = EnsembleFolder(as_path(path))
    if not folder.exists():
        return RunFolder(as_path(path)).best.exists()
    return (folder.path / "members.json").exists() and all(
        RunFolder(run).best.exists() for run in folder.runs().values()
    )


def find_model(model: StrPath | None = None) -> Path:
    """The folder of a model: of a run, of an ensemble, or of one that ships, by its name; None is the best
    that ships.

    Raises RunError for what is none of them, with the nearest name where it looks like one.
    """
    if model is None:
        return shipped_model()
    path = as_path(model)
    if is_model(path):
        return path
    if path.is_dir():
        raise RunError(
            f"{shown(path)} is not a model: it holds neither config.toml nor ensemble.json",
            "A run is made by `beatmeter train`.",
        )
    if path.exists():
        raise RunError(
            f"{shown(path)} is a file, and a model is a folder",
            "Name the folder of a run, or a model of `beatmeter models`.",
        )
    if path.name == str(path):
        return shipped_model(path.name)
    raise RunError(
        f"there is no folder {shown(path)}",
        "Check the path; or name a model that ships: see `beatmeter models`.",
    )


def shipped_models(where: Path = SHIPPED) -> dict[str, Any]:
    """What ships: `default`, and `models` by name with what is known of them. Empty where nothing was
    packed."""
    file = where / INDEX
    if not file.exists():
        return {"default": None, "models": {}}
    value = read_json(file, RunError, UNPACKED)
    require(
        value,
        {"models": {"*": {"clips": int, "validation": {CHOICE: [float]}}}},
        str(file),
        RunError,
        UNPACKED,
    )
    if value.get("default") not in (None, *value["models"]) or any(
        len(m["validation"][CHOICE]) != 3 for m in value["models"].values()
    ):
        raise RunError(
            f"{file} does not fit itself: its default is none of its models, or an interval is not three "
            "numbers",
            UNPACKED,
        )
    return value


def shipped_model(name: str | None = None, where: Path = SHIPPED) -> Path:
    """The folder of a model that ships, by default of the best one. Raises RunError for a name that is
    none."""
    known = shipped_models(where)
    name = name or known["default"]
    if name is None:
        raise RunError(
            "no model ships with this copy of beatmeter",
            "Train one (`beatmeter train`) and name its folder, or run `make models`.",
        )
    if name not in known["models"]:
        raise RunError(f"there is no model {shown(name)!r}", nearest(name, known["models"]))
    return where / name


def pack(runs: StrPath | Iterable[StrPath], out: StrPath) -> dict[str, Any]:
    """Copy what `predict` needs of finished models to `out`, each under its own name, and make the best on
    validation the default.

    Members of an ensemble must be packed with it. A model of beats is packed beside them, for `structure`.
    Nothing but validation predictions decides. Returns the index.
    """
    runs, out = as_paths(runs), as_path(out)
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise RunError("two models have the same name", "Rename one of the folders.")
    for name, run in zip(names, runs, strict=True):
        _require_packable(name, run, runs, out)
    index: dict[str, Any] = {"default": None, "models": {}}
    for name, run in zip(names, runs, strict=True):
        validation = open_records(run, "val")
        if isinstance(validation, Marks):
            index.setdefault(CURVES, {})[name] = {"clips": len(validation), "validation": _beats(validation)}
            from beatmeter.learning.checkpoints import halved  # torch: only where a model is packed

            _copy(run, out / name)
            atomic.write_bytes(out / name / BEST, halved(run / BEST))
            continue
        validation = open_predictions(run, "val")
        measured = {key: estimate(metric(key), validation) for key in MEASURED}
        figures = {key: [round(x, 4) for x in (e.value, e.low, e.high)] for key, e in measured.items()}
        index["models"][name] = {"clips": len(validation), "validation": figures}
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
    index["default"] = max(index["models"], key=lambda n: index["models"][n]["validation"][CHOICE][0])
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
