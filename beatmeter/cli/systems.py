"""Which systems a command line names: run folders, predictions files, several seeds of one system, the model
that answers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from beatmeter.cli.options import TERMINAL
from beatmeter.errors import AudioError, ConfigError, DataError, RunError, nearest, shown
from beatmeter.runtime.artifacts import read_toml, to_json_line
from beatmeter.runtime.progress import untold

STDIN = Path("-")


def gather(arguments: Sequence[str], group: bool) -> dict[str, list[Path]]:
    """Systems by name, in order, with the paths of their runs.

    `NAME=PATH,PATH` names one; a path is named after itself. With `group`, run folders whose config.toml
    differs in nothing but the seed are one system, named after what their names have in common. Raises
    ConfigError for names that are given twice.
    """
    bare = [Path(text) for text in arguments if not _is_named(text)]
    names = dict(zip(map(str, bare), short_names(bare), strict=True))
    found: dict[str, list[Path]] = {}
    first_of: dict[str, str] = {}
    for text in arguments:
        if _is_named(text):
            name, _, rest = text.partition("=")
            paths = [Path(part) for part in rest.split(",") if part]
            if not paths:
                raise ConfigError(f"{text!r} names no run", "Write NAME=RUN,RUN.")
        else:
            name, paths = names[str(Path(text))], [Path(text)]
            same = _settings(paths[0]) if group else None
            if same is not None:
                name = first_of.setdefault(same, name)
                if name in found:
                    found[name] += paths
                    continue
        if name in found:
            raise ConfigError(f"the system {name!r} is named twice", "Give the systems names: NAME=RUN.")
        found[name] = paths
    shared = {
        name: _in_common(paths) if len(paths) > 1 and name in first_of.values() else name
        for name, paths in found.items()
    }
    return (
        {shared[name]: paths for name, paths in found.items()}
        if len(set(shared.values())) == len(found)
        else found
    )


def model_and_files(paths: Sequence[Path]) -> tuple[Path, Sequence[Path]]:
    """The folder of the model that answers, and the files to hear: a first path that is no audio must be a
    model.

    Raises RunError when it is neither, with the nearest name; ConfigError when there is no file.
    """
    from beatmeter.datasets.files import is_audio
    from beatmeter.serving.models import find_model, is_model, shipped_models

    first = paths[0]
    if is_model(first):
        files = paths[1:]
    elif (
        first == STDIN or first.exists() or is_audio(first.name)
    ):  # an audio file that is missing is told among the files
        return find_model(), paths
    elif str(first) in shipped_models()["models"]:
        files = paths[1:]
    else:
        raise _neither(first)
    if not files:
        raise ConfigError(f"{first} is a model: name the files to hear", f"For instance: {first} song.mp3")
    return find_model(first), files


def _neither(path: Path) -> RunError:
    """The error for a path where there is nothing: neither audio nor a model."""
    from beatmeter.serving.models import shipped_models

    if path.name != str(path):
        return RunError(f"there is no file or folder {shown(path)}", "Check the path.")
    near = nearest(path.name, shipped_models()["models"])
    return RunError(f"there is no model {shown(path)!r}, and no file or folder of that name", near)


def check_priors(model: Path, priors: Mapping[str, float] | None) -> None:
    """Raise what `Predictor.load` would of priors and abstention, before anything heavy is loaded."""
    from beatmeter.evaluation.calibration import Calibration
    from beatmeter.evaluation.runs import RunFolder

    file = RunFolder(model).calibration
    if not file.exists():
        raise RunError(
            "priors and abstention need calibrated scores", f"Run `beatmeter calibrate {model}` first."
        )
    if priors:
        Calibration.load(file).require_priors(priors)


def files_of(given: Sequence[Path]) -> list[Path]:
    """The files to hear: folders are searched, everything else is taken as it is. Raises DataError for a
    folder without audio."""
    from beatmeter.datasets.files import find_audio

    found: list[Path] = []
    for path in given:
        inside = find_audio(path) if path.is_dir() and path != STDIN else [path]
        if not inside:
            raise DataError(
                f"there are no audio files in {shown(path)}", "Give files, or folders that hold audio."
            )
        found += inside
    return found


@contextlib.contextmanager
def standard_input(names: Sequence[Path]) -> Iterator[list[Path]]:
    """The files to decode: for - one that holds what comes by standard input."""
    from beatmeter.audio.piped import spooled

    with spooled(sys.stdin.buffer) if STDIN in names else contextlib.nullcontext(STDIN) as spool:
        yield [spool if name == STDIN else name for name in names]


@contextlib.contextmanager
def listening(files: Sequence[Path]) -> Iterator[tuple[Callable[[float], object], Callable[[], object]]]:
    """A progress bar: over the seconds of one file, or over several files or none. Gives what is called with
    seconds that have been heard, and what is called after every file."""
    from beatmeter.audio.decode import probe

    if len(files) != 1:
        with TERMINAL.track("listening", len(files), "files") as tick:
            yield untold, lambda: tick(1)
        return
    total = 0.0
    with contextlib.suppress(AudioError):  # told when the file is decoded
        total = probe(files[0]).seconds
    heard, shown_seconds = 0.0, 0
    with TERMINAL.track("listening", round(total), "s") as tick:

        def more(seconds: float) -> None:
            nonlocal heard, shown_seconds
            heard += seconds
            tick(round(heard) - shown_seconds)
            shown_seconds = round(heard)

        yield more, lambda: None


def _in_common(paths: Sequence[Path]) -> str:
    """How the names of several runs begin; the first name where they have nothing in common."""
    names = short_names(paths)
    same = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    return names[0][:same].rstrip("-_. ") or names[0]


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for every path: its last part, with the part above it where that is not enough."""
    short = [
        p.resolve().name
        if p.is_dir()
        else p.resolve().parent.parent.name
        if p.parent.name == "predictions"
        else p.stem
        for p in paths
    ]
    if len(set(short)) == len(short):
        return short
    longer = [f"{p.resolve().parent.name}/{s}" for p, s in zip(paths, short, strict=True)]
    twice = [p for i, p in enumerate(paths) if longer[i] in longer[:i]]
    if twice:
        raise ConfigError(f"{twice[0]} is named twice", "Give the systems names: NAME=RUN.")
    return longer


def _is_named(text: str) -> bool:
    return "=" in text and not Path(text).exists()


def _settings(run: Path) -> str | None:
    """The settings of a run folder but for its seed, as text; None where there are none."""
    file = run / "config.toml"
    return (
        to_json_line({k: v for k, v in read_toml(file).items() if k != "seed"}, sort_keys=True)
        if file.exists()
        else None
    )
