"""beatmeter ensemble: several systems joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.lab_options import PATH, common_option, require_meter, seed_option
from beatmeter.cli.options import echo
from beatmeter.cli.systems import gather
from beatmeter.errors import ConfigError, EvaluationError
from beatmeter.runtime.artifacts import named

if TYPE_CHECKING:
    from beatmeter.schema import ClassPredictions


@click.command()
@click.argument("members", nargs=-1, required=True, metavar="RUN RUN ...")
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Where to write predictions and ensemble.json."
)
@click.option(
    "--method",
    type=click.Choice(["mean", "stack"]),
    default="mean",
    show_default=True,
    help="How members are combined.",
)
@click.option(
    "--criterion",
    default="log_loss",
    show_default=True,
    help="Metric that the weights of the mean are tuned for.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="NAME=W",
    help="A weight by hand, instead of tuning; the others get 0.",
)
@click.option("--calibrated", is_flag=True, help="Calibrate every member by its own calibration.json first.")
@click.option("--validation", default="val", show_default=True, help="The split to tune on.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("test",),
    show_default=True,
    help="Further splits to predict; may be repeated.",
)
@common_option
@seed_option
def ensemble(
    members: tuple[str, ...],
    out: Path,
    method: str,
    criterion: str,
    weights: tuple[str, ...],
    calibrated: bool,
    validation: str,
    splits: tuple[str, ...],
    common: bool,
    seed: int,
) -> None:
    """Combine members into one. The first starts with all the weight, the others rise from 0 while validation
    gets better.

    Predictions of validation are made by fits on its other folds, so that they can be judged and calibrated.

    \b
    beatmeter ensemble runs/frozen runs/lora --out runs/both
    beatmeter ensemble mine.csv theirs.csv --method stack --out runs/stacked
    """
    from beatmeter.evaluation.comparison.compare import compare as judge
    from beatmeter.evaluation.comparison.ensemble import fit_mean, fit_stack
    from beatmeter.evaluation.predictions import write_predictions
    from beatmeter.evaluation.report.lab_text import comparison_text, ensemble_text
    from beatmeter.serving.models import EnsembleFolder, is_model

    paths = {name: found[0] for name, found in gather(members, group=False).items()}
    loaded = {
        split: {name: _member(path, split, calibrated) for name, path in paths.items()}
        for split in dict.fromkeys([validation, *splits])
    }
    if method == "stack":
        if weights:
            raise ConfigError("--weight belongs to --method mean", "Stacking finds its own coefficients.")
        fitted = fit_stack(loaded[validation], out.name, seed=seed, common=common)
    else:
        fitted = fit_mean(
            loaded[validation], _weights(weights), criterion, out.name, seed=seed, common=common
        )
    fitted.ensemble.save(out / "ensemble.json")
    if all(is_model(path) for path in paths.values()):
        EnsembleFolder(out).write_members(paths, calibrated)
    write_predictions(out / "predictions" / f"{validation}.csv", fitted.validation)
    click.echo(ensemble_text(fitted.ensemble))
    best, gain = fitted.best_member(), fitted.gain(seed=seed)
    click.echo(
        f"{validation}, out of fold: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] accuracy over "
        f"{best}, its best member by log loss"
    )
    for split in splits:
        if split == validation:
            continue
        combined = fitted.ensemble.combine(loaded[split], out.name, common)
        write_predictions(out / "predictions" / f"{split}.csv", combined)
        if (combined.primary >= 0).any():
            click.echo(f"\n{split}: the ensemble against {best}")
            click.echo(
                comparison_text(
                    judge({best: [loaded[split][best]], out.name: [combined]}, common=common, seed=seed), 0
                ),
                nl=False,
            )
    echo(f"ensemble: {out}")


def _member(path: Path, split: str, calibrated: bool) -> ClassPredictions:
    """A member's predictions of one split, through its calibration when asked."""
    from beatmeter.evaluation.calibration import Calibration
    from beatmeter.evaluation.predictions import open_predictions

    predictions = open_predictions(path, split)
    require_meter(path, predictions, "joined")
    if not calibrated:
        return predictions
    file = path / "calibration.json" if path.is_dir() else path.with_suffix(".calibration.json")
    calibration = Calibration.load(file)
    with named(file, EvaluationError):
        return calibration.apply(predictions)


def _weights(texts: Sequence[str]) -> dict[str, float] | None:
    if not texts:
        return None
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise EvaluationError(f"--weight {text!r} is not of the form NAME=NUMBER") from None
    return found
