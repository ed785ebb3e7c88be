"""Models as small folders: the ones that ship with the package, and ensembles of runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beatmeter.errors import RunError, nearest, shown
from beatmeter.evaluation.comparison.ensemble import AGAIN, Ensemble
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import read_json, require, write_json
from beatmeter.runtime.paths import StrPath, as_path

SHIPPED = Path(__file__).resolve().parents[1] / "models"
INDEX = "models.json"
UNPACKED = "Install beatmeter again, or run `beatmeter models pack`."
CHOICE = "balanced_accuracy"  # on validation: what makes a model the default


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
