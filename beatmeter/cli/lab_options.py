"""What the commands over predictions share: their options, and how they open a run, a file and its audio."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatmeter.cli.options import echo
from beatmeter.errors import EvaluationError

if TYPE_CHECKING:
    from beatmeter.schema import ClassPredictions

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def _shared(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


split_option = click.option("--split", help="Which split.  [default: test of a run, the only one of a file]")
common_option = click.option(
    "--common", is_flag=True, help="Use the items that all have, leave the others out."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
corrections_option = click.option(
    "--corrections",
    type=PATH,
    metavar="FILE",
    help="Corrected labels: CSV with id, label (3 or 3,4; empty leaves out).",
)
audio_options = _shared(
    click.option(
        "--audio",
        type=PATH,
        metavar="DIR",
        help="Where the audio lies, for clips to listen to.  [default: the run's own data]",
    ),
    click.option(
        "--seconds",
        type=float,
        default=10.0,
        show_default=True,
        help="Length of the excerpts inside the page; 0 leaves audio out.",
    ),
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of bootstrap and permutations."
)


def open_corrected(path: Path, split: str | None, corrections: Path | None) -> ClassPredictions:
    from beatmeter.evaluation.corrections import Corrections
    from beatmeter.evaluation.predictions import open_predictions

    predictions = open_predictions(path, split)
    return Corrections.read(corrections).apply(predictions)[0] if corrections else predictions


def require_meter(where: Path, predictions: ClassPredictions, what: str) -> None:
    """Raise EvaluationError for scores of a task over a column."""
    from beatmeter.evaluation.report.assessment import of_meter

    if not of_meter(predictions):
        raise EvaluationError(
            f"{where} answers a column ({predictions.meta.get('task', 'multiclass')}), and only scores of "
            f"meter are {what}"
        )


def find_audio(predictions: ClassPredictions, audio: Path | None, where: Path, seconds: float) -> Any:
    """How a page finds audio; None when it is to hold none."""
    from beatmeter.evaluation.report.players import locator

    if seconds <= 0:
        return None
    return locator(predictions, audio, where if (where / "config.toml").exists() else None, echo)


def command_line() -> str:
    return shlex.join(["beatmeter", *sys.argv[1:]])
