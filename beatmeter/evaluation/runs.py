"""A run folder: what lies where, and how its log is kept. Everything in it can be read without beatmeter."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from beatmeter import __version__
from beatmeter.errors import RunError, shown
from beatmeter.runtime import artifacts, atomic, lock
from beatmeter.runtime.config import build, change, differences, flatten, to_toml
from beatmeter.runtime.locations import Locations
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.settings import RunConfig

HINT = "Restore it from a copy, or train anew with another --out."
EPOCH = {
    "epoch": int,
    "?train": {"?loss": float},
    "?val": {},
    "?layer_weights": {"*": [float]},
}  # a line of epochs.jsonl
ABOUT = {  # run.json
    "?finished": str,
    "?fingerprint": str,
    "?command": str,
    "?places": {"run": str, "cwd": str},
    "?spec": {"?backbone": str, "?poolings": [{"name": str}]},
    "?data": {"?path": str, "?sha256": str},
    "?split": {"?sha256": str, "?tracks": {"*": int}},
    "?packages": {"*": str},
}
LAST_EPOCH = 10**9


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run: `config.toml` (what differs from the defaults), `run.json`, `epochs.jsonl`, `best`
    and `last` checkpoints, `predictions/<split>.csv` (`.npz` of embeddings; and `<split>.curves.npz`),
    `evaluation/<split>.json` and `.txt`, `split.csv`, `excluded.csv`, `tensorboard/`."""

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
        """Embeddings are kept as .npz, everything else as .csv."""
        vectors = self.path / "predictions" / f"{split}.npz"
        return vectors if vectors.exists() else vectors.with_suffix(".csv")

    def curves(self, split: str) -> Path:
        """What a task on frames predicts before it is decoded."""
        return self.path / "predictions" / f"{split}.curves.npz"

    @classmethod
    def create(cls, path: StrPath, config: RunConfig) -> RunFolder:
        """A new run. Refuses a folder that holds a run already; of several processes that come at once, one
        makes the run."""
        folder = cls(as_path(path))
        folder.require_new()
        if not atomic.create_text(folder.config_file, to_toml(differences(config, RunConfig()))):
            folder.require_new()
        return folder

    def require_new(self) -> None:
        """Raise RunError when a run lies here, with how to go on."""
        if not os.path.lexists(self.config_file):
            return
        if self.finished:
            raise RunError(
                f"{shown(self.path)} holds a finished run",
                f"See it with `beatmeter report {self.path}`, or choose another --out.",
            )
        epochs = len(self.read_log())
        done = f"{epochs} epoch{'s' * (epochs != 1)} done" if epochs else "no epoch done"
        hint = (
            f"Go on with it: the same command with --continue, or `beatmeter train --resume {self.path}`; "
            "or choose another --out."
        )
        raise RunError(f"{shown(self.path)} holds an unfinished run already ({done})", hint)

    def begun(self, config: RunConfig) -> bool:
        """Whether a run of these settings lies here. Raises RunError when it is one of others, naming some
        that differ."""
        if not os.path.lexists(self.config_file):
            return False
        mine, wanted = flatten(self.config()), flatten(config)
        differs = [
            f"{name} {mine[name]!r}, not {value!r}" for name, value in wanted.items() if mine[name] != value
        ]
        if differs:
            more = f" and {len(differs) - 3} more" if len(differs) > 3 else ""
            raise RunError(
                f"{shown(self.path)} holds a run of other settings: {'; '.join(differs[:3])}{more}",
                f"Go on by its own: beatmeter train --resume {self.path}; or choose another --out.",
            )
        return True

    def held(self, report: Callable[[str], object] = print) -> AbstractContextManager[None]:
        """Be the one process that trains here. Raises RunError, naming the other, when there is one."""
        return lock.held(self.path / ".lock", f"training in {shown(self.path)}", report)

    @classmethod
    def open(cls, path: StrPath) -> RunFolder:
        """An existing run."""
        folder = cls(as_path(path))
        if not folder.path.is_dir():
            raise RunError(
                f"there is no folder {shown(path)}", "Check the path; runs are made by `beatmeter train`."
            )
        if not folder.config_file.exists():
            raise RunError(
                f"{path} is not a run folder: it has no config.toml", "A run is made by `beatmeter train`."
            )
        return folder

    def config(self) -> RunConfig:
        """The settings of the run, as they were given."""
        return build(RunConfig, artifacts.read_toml(self.config_file, RunError, HINT), str(self.config_file))

    @property
    def locations(self) -> Locations:
        """Where this run was begun."""
        told = self.about().get("places")
        return Locations(**told) if told else Locations.now(self.path)

    def resolved(self, data: str | None = None, cache: str | None = None) -> RunConfig:
        """The settings with every path where it is found from here (`beatmeter.runtime.locations`).

        A path that is found nowhere stays as it was given, except for a cache, which can be made anew. `data`
        and `cache` replace the run's own."""
        config, locations = self.config(), self.locations

        def at(given: str) -> str:
            return locations.find(given, self.path) or given

        backbone = locations.find(config.features.backbone, self.path)
        data = data or at(config.data.path)
        values: dict[str, dict[str, Any]] = {
            "data": {
                "path": data,
                "extra": list(map(at, config.data.extra)),
                "corrections": list(map(at, config.data.corrections)),
            },
            "split": {"file": at(config.split.file)},
            "features": {"cache": cache or self._cache(config, locations)},
            "training": {"start": at(config.training.start)},
        }
        if backbone is not None and Path(backbone).is_dir() and os.sep in config.features.backbone:
            values["features"]["backbone"] = backbone
        return change(config, values, str(self.config_file))

    def _cache(self, config: RunConfig, locations: Locations) -> str:
        """Where the cache is, or may be made: where its folder's own folder is there."""
        candidates = locations.candidates(config.features.cache, self.path)
        possible = [path for path in candidates if "://" in path or Path(path).exists()] or [
            p for p in candidates if Path(p).parent.is_dir()
        ]
        return possible[0] if possible else config.features.cache

    def require_data(self, config: RunConfig, option: str = "--data DIR") -> None:
        """Raise RunError when the data set of `config`, of `resolved`, or a file that belongs to it, is not
        there."""
        given = self.config().data
        if not config.data.path:
            raise RunError(f"{shown(self.config_file)} names no data set", HINT)
        for path in (config.data.path, *config.data.extra, *config.data.corrections):
            if not Path(path).exists():
                looked = ", ".join(dict.fromkeys(map(shown, self.locations.candidates(path, self.path))))
                what = "the data set" if path == given.path else "a file or folder of the data set"
                hint = (
                    f"Say where it lies now: {option}."
                    if path == given.path
                    else "Put it back, or take it out of config.toml."
                )
                raise RunError(f"{what} of {shown(self.path)} is not there (looked for {looked})", hint)

    def require_split(self) -> None:
        """Raise RunError when split.csv is not the one that this run was trained with: tracks would be lost
        or tested twice."""
        known = self.about().get("split", {}).get("sha256")
        found = hashlib.sha256(artifacts.read_bytes(self.split_file, RunError, HINT)).hexdigest()
        if known is not None and found != known:
            raise RunError(f"{shown(self.split_file)} was changed or cut since the run was trained", HINT)

    def say_cache(self, config: RunConfig, report: Callable[[str], object]) -> None:
        """Tell when the cache of `config`, of `resolved`, is not there and will be made anew."""
        cache = config.features.cache
        if "://" in cache or Path(cache).exists():
            return
        looked = ", ".join(
            dict.fromkeys(map(shown, self.locations.candidates(self.config().features.cache, self.path)))
        )
        report(
            f"the cache of {shown(self.path)} is not there (looked for {looked}): a new one is begun in "
            f"{shown(cache)}; --cache DIR names another"
        )

    @property
    def finished(self) -> bool:
        """Whether training and evaluation have come to their end."""
        return "finished" in self.about()

    def about(self) -> dict[str, Any]:
        """What `write_about` wrote, empty before."""
        if not os.path.lexists(self.about_file):
            return {}
        value = artifacts.read_json(self.about_file, RunError, HINT)
        artifacts.require(value, ABOUT, str(self.about_file), RunError, HINT)
        return value

    def write_about(self, values: dict[str, Any]) -> None:
        """Add `values` to `run.json`."""
        artifacts.write_json(self.about_file, self.about() | values, sort_keys=True)

    def log(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append epochs; they are on disk before the checkpoint that follows them."""
        with atomic.writing(self.epochs), self.epochs.open("a", encoding="utf-8") as file:
            file.write("".join(artifacts.to_json_line(line) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def read_log(self, report: Callable[[str], object] = lambda text: None) -> list[dict[str, Any]]:
        """The epochs so far. Raises RunError with the line of one that cannot be read; a half line at the
        end, as a killed process leaves it, is left out, which `report` is told."""
        if not os.path.lexists(self.epochs):
            return []
        found = artifacts.read_json_lines(self.epochs)
        for number, line in enumerate(found.values, 1):
            where = f"{shown(self.epochs)}, epoch line {number}"
            artifacts.require(line, EPOCH, where, RunError, HINT)
            if not 1 <= line["epoch"] <= LAST_EPOCH:
                raise RunError(f"{where}: epoch {line['epoch']} is not between 1 and {LAST_EPOCH}", HINT)
        if found.torn:
            report(found.torn)
        return found.values

    def truncate_log(self, epochs: int) -> None:
        """Forget epochs after `epochs`, which were logged and not saved, and a half line at the end."""
        kept = [line for line in self.read_log() if line["epoch"] <= epochs]
        atomic.write_text(self.epochs, "".join(artifacts.to_json_line(line) + "\n" for line in kept))

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard finds its events."""
        return self.path / "tensorboard"


def provenance() -> dict[str, Any]:
    """Versions, machine and command: recorded with every run, never part of a fingerprint."""
    names = ("torch", "transformers", "peft", "zarr", "numpy", "soundfile", "soxr", "scikit-learn")
    return {
        "beatmeter": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "machine": platform.machine(),
        "system": platform.system(),
        "command": shown(" ".join(["beatmeter", *sys.argv[1:]])),
    }
