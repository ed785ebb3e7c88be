"""beatmeter track"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import echo
from beatmeter.runtime.display import count


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--to",
    "trackers",
    multiple=True,
    required=True,
    type=click.Choice(["wandb", "mlflow"]),
    help="Where to: Weights & Biases or MLflow; may be repeated.",
)
def track(runs: tuple[Path, ...], trackers: tuple[str, ...]) -> None:
    """Send the figures of finished RUNs to Weights & Biases or MLflow: settings, every epoch, evaluations.

    While a run trains, `--set training.trackers=wandb` does the same. Addresses and keys come from the
    environment, as those programs read them (WANDB_MODE, MLFLOW_TRACKING_URI). A run that was sent before
    goes to its old place.

    \b
    beatmeter track runs/first runs/second --to mlflow
    beatmeter track runs/sweep/* --to wandb

    Exit status: 1 when something could not be sent.
    """
    from beatmeter.learning.trackers import require_trackers, send

    require_trackers(trackers)
    failed: list[str] = []

    def report(text: str) -> None:
        failed.append(text)
        echo(text)

    for run in runs:
        before = len(failed)
        epochs = send(run, trackers, report)
        if len(failed) == before:
            echo(f"{run}: {count(epochs, 'epoch')} sent to {', '.join(trackers)}")
    raise SystemExit(1 if failed else 0)
