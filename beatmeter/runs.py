"""A run folder: what lies where, and how its log is kept. Everything in it can be read without beatmeter."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from beatmeter import __version__, atomic
from beatmeter.config import build, differences, read_toml, to_toml
from beatmeter.errors import RunError, shown
from beatmeter.paths import StrPath, as_path
from beatmeter.settings import RunConfig


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run: `config.toml` (what differs from the defaults), `run.json`, `epochs.jsonl`, `best` and `last`
    checkpoints, `predictions/<split>.csv`, `evaluation/<split>.json` and `.txt`, `split.csv`, `excluded.csv`, `tensorboard/`."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", as_path(self.path))

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def about_file(self) -> Path:
        return self.path / "run.json"

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.jsonl"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def split_file(self) -> Path:
        return self.path / "split.csv"

    @property
    def excluded_file(self) -> Path:
        return self.path / "excluded.csv"

    @property
    def calibration(self) -> Path:
        return self.path / "calibration.json"

    def evaluation(self, split: str) -> Path:
        return self.path / "evaluation" / f"{split}.json"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.csv"

    @classmethod
    def create(cls, path: StrPath, config: RunConfig) -> RunFolder:
        """A new run. Refuses a folder that holds a run already."""
        folder = cls(as_path(path))
        if folder.config_file.exists():
            raise RunError(f"{path} holds a run already", f"Continue it with `beatmeter train --resume {path}`, or choose another --out.")
        folder.path.mkdir(parents=True, exist_ok=True)
        atomic.write_text(folder.config_file, to_toml(differences(config, RunConfig())))
        return folder

    @classmethod
    def open(cls, path: StrPath) -> RunFolder:
        """An existing run."""
        folder = cls(as_path(path))
        if not folder.path.is_dir():
            raise RunError(f"there is no folder {shown(path)}", "Check the path; runs are made by `beatmeter train`.")
        if not folder.config_file.exists():
            raise RunError(f"{path} is not a run folder: it has no config.toml", "A run is made by `beatmeter train`.")
        return folder

    def config(self) -> RunConfig:
        """The settings of the run."""
        return build(RunConfig, read_toml(self.config_file), str(self.config_file))

    @property
    def finished(self) -> bool:
        """Whether training and evaluation have come to their end."""
        return "finished" in self.about()

    def about(self) -> dict[str, Any]:
        """What `write_about` wrote, empty before."""
        if not self.about_file.exists():
            return {}
        value: dict[str, Any] = json.loads(self.about_file.read_text())
        return value

    def write_about(self, values: dict[str, Any]) -> None:
        """Add `values` to `run.json`."""
        atomic.write_text(self.about_file, json.dumps(self.about() | values, indent=1, sort_keys=True) + "\n")

    def log(self, line: dict[str, Any]) -> None:
        """Append one epoch."""
        with atomic.writing(self.epochs), self.epochs.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The epochs so far."""
        return [json.loads(line) for line in self.epochs.read_text().splitlines()] if self.epochs.exists() else []

    def truncate_log(self, epochs: int) -> None:
        """Forget epochs after `epochs`: they were logged and not saved."""
        kept = [line for line in self.read_log() if line["epoch"] <= epochs]
        atomic.write_text(self.epochs, "".join(json.dumps(line) + "\n" for line in kept))

    def tensorboard(self, first_epoch: int) -> Board:
        """A TensorBoard writer that drops what it holds from `first_epoch` on."""
        return Board(self.path / "tensorboard", first_epoch)


class Board:
    """Epoch lines as TensorBoard scalars."""

    def __init__(self, path: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(path), purge_step=first_epoch)

    def epoch(self, line: dict[str, Any]) -> None:
        """Numbers of `line` under their paths, `val/accuracy` and so on."""
        for name, value in _scalars(line):
            self.writer.add_scalar(name, value, line["epoch"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def _scalars(value: Any, path: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() if key != "epoch" for pair in _scalars(item, f"{path}/{key}" if path else key)]
    if isinstance(value, list) and value and isinstance(value[0], float):
        return [(f"{path}/{i + 1:02d}", item) for i, item in enumerate(value)]
    return [(path, float(value))] if isinstance(value, int | float) else []


def provenance() -> dict[str, Any]:
    """Versions, machine and command: recorded with every run, never part of a fingerprint."""
    names = ("torch", "transformers", "peft", "zarr", "numpy", "soundfile", "soxr", "scikit-learn")
    return {
        "beatmeter": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "machine": platform.machine(),
        "system": platform.system(),
        "command": " ".join(["beatmeter", *sys.argv[1:]]),
    }
