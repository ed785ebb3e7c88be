"""beatmeter predict"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.artifacts import to_json_line
from beatmeter.cli.options import bar, device_option, echo
from beatmeter.cli.systems import model_and_files
from beatmeter.errors import BeatmeterError, ConfigError, DataError

if TYPE_CHECKING:
    from beatmeter.predictor import Answer


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[MODEL] FILE...")
@click.option("--priors", metavar="3=0.4,4=0.5", help="How common the meters are in your music: the chance that a piece has each.")
@click.option("--abstain", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Leave this share of answers open: the least sure ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, scores of every class.")
@click.option("--jobs", type=int, default=0, help="Processes that decode audio; worth it for many files.")
@device_option
def predict(paths: tuple[Path, ...], priors: str | None, abstain: float, as_json: bool, jobs: int, device: str) -> None:
    """Say in which meter FILEs are. Folders are searched for audio.

    MODEL is a run folder, the folder of an ensemble, or the name of a model that ships (see `beatmeter models`); without it
    the best of those that ship answers.

    \b
    beatmeter predict song.mp3
    beatmeter predict MUSIC/ --json > meters.jsonl
    beatmeter predict runs/NAME song.mp3 MUSIC/
    beatmeter predict MUSIC/ --priors 3=0.2,4=0.7 --abstain 0.2
    Exit status: 0 every file got an answer, 1 some could not be used.
    """
    from beatmeter.datasets.folder import find_audio
    from beatmeter.device import choose_device
    from beatmeter.predictor import Predictor

    model, files = model_and_files(paths)
    found = [path for given in files for path in (find_audio(given) if given.is_dir() else [given])]
    if not found:
        raise DataError(f"no audio files in {', '.join(map(str, files))}", "Give files or folders that hold audio.")
    predictor = Predictor.load(model, choose_device(device), parse_priors(priors), abstain)
    if not as_json:
        echo(predictor.about)
        width = min(48, max(len(path.name) for path in found))
        click.echo(f"{'file':{width}}  meter     P  second        gap   {'  '.join(f'{c:>4}' for c in predictor.classes)}")
    progress = bar("predicting", len(found)) if len(found) > 20 and as_json else None
    failed = 0
    for path, answer in predictor.predict_files(found, jobs):
        failed += isinstance(answer, BeatmeterError)
        if as_json:
            value: dict[str, Any] = {"error": str(answer)} if isinstance(answer, BeatmeterError) else answer.to_json()
            click.echo(to_json_line({"file": os.fsdecode(path), **value}))
        elif isinstance(answer, BeatmeterError):
            click.echo(f"{_short(path.name, width):{width}}  {answer}")
        else:
            click.echo(f"{_short(path.name, width):{width}}  {_line(answer)}")
        if progress:
            progress.update(1)
    if progress:
        progress.close()
    raise SystemExit(1 if failed else 0)


def parse_priors(text: str | None) -> dict[str, float] | None:
    """`3=0.4,4=0.5` as numbers by class."""
    if text is None:
        return None
    try:
        return {name.strip(): float(value) for name, _, value in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise ConfigError(f"--priors {text!r} cannot be read", "Write --priors 3=0.4,4=0.5.") from None


def _line(answer: Answer) -> str:
    """One answer; `?` marks one that is not sure, `+` a second meter that is really there."""
    if answer.meter is None:
        return "no meter heard"
    first, second = answer.order[:2]
    meter = f"{answer.meter}+{answer.second}" if answer.second else answer.meter
    numbers = "  ".join(f"{s:4.2f}" for s in answer.scores)
    return (
        f"{meter:>5}{' ' if answer.sure else '?'} {answer.scores[first]:5.2f}  "
        f"{answer.classes[second]:>2} ({answer.scores[second]:.2f})  {answer.gap:6.2f}   {numbers}"
    )


def _short(text: str, width: int) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else text[: width - 3] + "..."
