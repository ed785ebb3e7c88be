"""beatmeter predict"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from beatmeter.cli.options import bar, device_option, echo
from beatmeter.errors import BeatmeterError, DataError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, scores of every class.")
@click.option("--jobs", type=int, default=0, help="Processes that decode audio; worth it for many files.")
@device_option
def predict(run: Path, files: tuple[Path, ...], as_json: bool, jobs: int, device: str) -> None:
    """Say in which meter FILES are, by the model of RUN. Folders are searched for audio.

    \b
    beatmeter predict runs/NAME song.mp3 MUSIC/
    beatmeter predict runs/NAME MUSIC/ --json > meters.jsonl
    Exit status: 0 every file got an answer, 1 some could not be used.
    """
    from beatmeter.datasets.folder import find_audio
    from beatmeter.device import choose_device
    from beatmeter.predictor import Predictor

    found = [path for given in files for path in (find_audio(given) if given.is_dir() else [given])]
    if not found:
        raise DataError(f"no audio files in {', '.join(map(str, files))}", "Give files or folders that hold audio.")
    predictor = Predictor.load(run, choose_device(device))
    if not as_json:
        echo(predictor.about)
        width = min(48, max(len(path.name) for path in found))
        click.echo(f"{'file':{width}}  meter  P      second      gap    {'  '.join(f'{c:>4}' for c in predictor.classes)}")
    progress = bar("predicting", len(found)) if len(found) > 20 and as_json else None
    failed = 0
    for path, answer in predictor.predict_files(found, jobs):
        failed += isinstance(answer, BeatmeterError)
        if as_json:
            value: dict[str, Any] = {"error": str(answer)} if isinstance(answer, BeatmeterError) else answer.to_json()
            click.echo(json.dumps({"file": os.fsdecode(path), **value}))
        elif isinstance(answer, BeatmeterError):
            click.echo(f"{_short(path.name, width):{width}}  {answer}")
        else:
            first, second = answer.order[:2]
            numbers = "  ".join(f"{s:4.2f}" for s in answer.scores)
            click.echo(
                f"{_short(path.name, width):{width}}  {answer.meter:>5}  {answer.scores[first]:.2f}   "
                f"{answer.classes[second]:>2} ({answer.scores[second]:.2f})   {answer.gap:.2f}   {numbers}"
            )
        if progress:
            progress.update(1)
    if progress:
        progress.close()
    raise SystemExit(1 if failed else 0)


def _short(text: str, width: int) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else text[: width - 3] + "..."
