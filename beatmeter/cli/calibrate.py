"""beatmeter calibrate: what the scores of a run are worth, learned on validation."""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.lab_options import PATH, json_option, require_meter, seed_option
from beatmeter.cli.options import TERMINAL, device_option, echo
from beatmeter.errors import EvaluationError
from beatmeter.runtime.artifacts import to_json


@click.command()
@click.argument("where", type=PATH, metavar="RUN")
@click.option(
    "--split", default="val", show_default=True, help="The split to fit on; it should be validation."
)
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    help="none, temperature, platt or isotonic; auto chooses for every class.",
)
@click.option(
    "--apply",
    "targets",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Predictions to calibrate too; may be repeated.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="Where to write.  [default: calibration.json in the run, FILE.calibration.json beside a file]",
)
@click.option(
    "--sounds",
    type=click.IntRange(0),
    default=840,
    show_default=True,
    help="Sounds without meter that RUN hears, to learn when no meter is heard; 0 leaves that out.",
)
@click.option(
    "--data", type=PATH, metavar="DIR", help="Where the data set of RUN lies now.  [default: where it was]"
)
@click.option(
    "--music",
    type=PATH,
    metavar="DIR",
    help="A data set whose validation music RUN hears too, as what most music is like.",
)
@click.option(
    "--sure-on",
    metavar="SPLIT",
    help="Predictions of a part of that split, which decides when an answer is sure.  [default: all of it]",
)
@device_option
@json_option
@seed_option
def calibrate(
    where: Path,
    split: str,
    kind: str,
    targets: tuple[Path, ...],
    out: Path | None,
    sounds: int,
    data: Path | None,
    music: Path | None,
    sure_on: str | None,
    device: str,
    as_json: bool,
    seed: int,
) -> None:
    """Learn from validation what the scores of RUN are worth: probabilities, when an answer is sure,
    thresholds of a second meter.

    A run or an ensemble also learns when to answer that no meter is heard, from excerpts of its validation
    music and from generated sounds: noise, tones, hum, speech, gongs, clicks and notes at random. That takes
    some minutes, and the audio of the run. A run that was trained on music that is hard to hear takes sounds
    for music unless ordinary --music sets the threshold. A file of predictions holds no model that could hear
    them.

    \b
    beatmeter calibrate runs/NAME
    beatmeter calibrate val.csv --apply test.csv
    """
    from dataclasses import replace

    import numpy as np

    from beatmeter.evaluation.calibration import FEWEST, Calibration
    from beatmeter.evaluation.diagnostics import guessing_warning, performance
    from beatmeter.evaluation.predictions import open_predictions, write_predictions
    from beatmeter.evaluation.report.lab_text import calibration_text
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.serving.models import hears

    validation = open_predictions(where, split)
    require_meter(where, validation, "calibrated")
    part = None
    if sure_on is not None:
        ids = set(open_predictions(where, sure_on).ids)
        part = np.array([id in ids for id in validation.ids])
        if int(part.sum()) < len(ids):
            raise EvaluationError(
                f"{len(ids) - int(part.sum())} of the {len(ids)} items of {sure_on} are not in {split}",
                "Name predictions of a part of what --split names.",
            )
    calibration = Calibration.fit(validation, kind, seed=seed, sure_on=part)
    labelled = validation.take(np.flatnonzero(validation.primary >= 0))
    groups = len(set(labelled.groups))
    doubt = guessing_warning(performance(labelled)).strip()
    if doubt and groups < FEWEST:
        raise EvaluationError(
            f"{groups} groups of labelled items teach nothing here. {doubt}",
            "Use a validation split with more songs, or train longer.",
        )
    if doubt:
        echo(f"warning: {doubt}")
    out = out or (where / "calibration.json" if where.is_dir() else where.with_suffix(".calibration.json"))
    require_writable(out)
    if hears(where) and sounds:
        from beatmeter.runtime.device import choose_device
        from beatmeter.serving.presence import fit_by_hearing

        presence, pairs = fit_by_hearing(
            where, validation, choose_device(device), sounds, seed, data, music, TERMINAL
        )
        calibration = replace(calibration, presence=presence, pairs=pairs)
    elif sounds:
        echo(f"note: {where} holds no model that could hear sounds without meter, so none is told from music")
    calibration.save(out)
    effects = {}
    if where.is_dir() and split != "test" and (where / "predictions" / "test.csv").exists():
        test = open_predictions(where, "test")
        effects["test"] = (test, calibration.apply(test))
    for target in targets:
        raw = open_predictions(target)
        effects[target.name] = (raw, calibration.apply(raw))
        write_predictions(target.with_suffix(".calibrated.csv"), effects[target.name][1])
        echo(f"calibrated: {target.with_suffix('.calibrated.csv')}")
    effects = {name: pair for name, pair in effects.items() if (pair[0].primary >= 0).any()}
    click.echo(
        to_json(calibration.to_json()) if as_json else calibration_text(calibration, effects), nl=as_json
    )
    echo(f"calibration: {out}")
