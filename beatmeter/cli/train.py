"""beatmeter train, beatmeter evaluate"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.dataset_options import corrections_option
from beatmeter.cli.options import TERMINAL, columns, configure, device_option, echo, quiet, settings_options
from beatmeter.errors import ConfigError
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.progress import SILENT

if TYPE_CHECKING:
    import torch

    from beatmeter.learning.training import Outcome
    from beatmeter.settings import RunConfig


@click.command()
@click.argument("dataset", type=click.Path(), required=False)
@click.option("--frozen", is_flag=True, help="Train a head on stored features.")
@click.option("--lora", is_flag=True, help="Train through the backbone with LoRA adapters.")
@settings_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<time>-<regime>-<backbone>]"
)
@click.option(
    "--extra-data",
    multiple=True,
    type=click.Path(),
    help="A further dataset that joins training only; may be repeated.",
)
@corrections_option
@click.option("--limit", type=int, help="At most this many tracks per split: a smoke run.")
@click.option("--seed", type=int, help="Seed of weights, order and augmentation.")
@click.option(
    "--seeds", metavar="0-15", help="Several seeds, each a run: those that share features train together."
)
@click.option(
    "--grid",
    multiple=True,
    metavar="NAME=V,V",
    help="Several values of a setting, each a run; may be repeated: all combinations.",
)
@click.option(
    "--predict",
    "splits",
    default="val,test",
    show_default=True,
    help="Splits to predict and diagnose at the end.",
)
@click.option(
    "--continue",
    "go_on",
    is_flag=True,
    help="Go on when --out holds an unfinished run of these settings; else begin.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Continue an interrupted run, bit for bit, by its own settings.",
)
@click.option(
    "--data",
    "moved",
    type=click.Path(),
    metavar="DIR",
    help="With --resume: where the data set of the run lies now.",
)
@click.option(
    "--cache",
    type=click.Path(),
    metavar="DIR",
    help="Folder of feature stores; with --resume, where it lies now.  [default: cache]",
)
@device_option
def train(
    dataset: str | None,
    frozen: bool,
    lora: bool,
    recipe: tuple[str, ...],
    assignments: tuple[str, ...],
    out: Path | None,
    extra_data: tuple[str, ...],
    corrections: tuple[str, ...],
    limit: int | None,
    seed: int | None,
    seeds: str | None,
    grid: tuple[str, ...],
    splits: str,
    go_on: bool,
    resume: Path | None,
    moved: str | None,
    cache: str | None,
    device: str,
) -> None:
    """Train on DATASET and say how good the model is and what it confuses.

    With --seeds or --grid, the run folders lie in the folder --out; the same command again goes on where it
    was stopped, and tries again what failed. Processes that `torchrun -m beatmeter train` or `accelerate
    launch -m beatmeter train` starts share one run.

    \b
    beatmeter train --frozen data/demo --recipe spectral-lag
    beatmeter train --frozen data/demo --recipe spectral-lag --seeds 0-15 --grid training.head_lr=1e-3,3e-3
    beatmeter train --lora data/demo --recipe embedded-lag --set training.epochs=5
    beatmeter train --frozen data/demo --recipe spectral-lag --out runs/NAME --continue
    beatmeter train --resume runs/NAME
    """
    if moved is not None and resume is None:
        raise ConfigError(
            "--data says where the data of a run that is resumed lie now",
            "A new run takes DATASET: beatmeter train DATASET --frozen.",
        )
    if frozen and lora:
        raise ConfigError(
            "--frozen and --lora are two ways to train, and a run takes one",
            "Leave one out; compare two runs by `beatmeter compare`.",
        )
    regime = "frozen" if frozen else "lora" if lora else None
    if resume is not None:
        if (
            dataset
            or regime
            or recipe
            or assignments
            or out
            or limit
            or seed
            or seeds
            or grid
            or extra_data
            or corrections
            or go_on
        ):
            raise ConfigError(
                "--resume continues a run with its own settings and takes no others",
                f"beatmeter train --resume {resume}",
            )
    elif dataset is None or regime is None:
        raise ConfigError(
            "train needs a DATASET and one of --frozen, --lora",
            "For instance: beatmeter train --frozen data/demo --recipe spectral-lag",
        )
    if resume is None:
        data = {
            name: value
            for name, value in (("path", dataset), ("extra", extra_data), ("corrections", corrections))
            if value
        }
        values: dict[str, object] = {"data": data, "limit": limit, "seed": seed}
        if regime == "lora":
            values |= {"regime": "streamed"}
        else:
            values |= {"regime": "frozen"}
        if cache is not None:
            values["features"] = {"cache": cache}
        if go_on and out is None:
            raise ConfigError(
                "--continue needs the folder of the run",
                "Name it with --out, or use beatmeter train --resume RUN.",
            )
        config = configure(recipe, assignments, **values)
        name = config.features.backbone.rstrip("/").split("/")[-1]
        out = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{regime}-{name}"

    from beatmeter.runtime.device import choose_device

    if resume is None and (seeds or grid):
        assert out is not None
        _sweep(config, out, seeds, grid, choose_device(device), _splits(splits))
        return
    from beatmeter.evaluation.runs import RunFolder
    from beatmeter.learning.training import run
    from beatmeter.runtime import distributed

    if resume is not None:
        folder = RunFolder.open(resume)
        out, config = resume, folder.resolved(moved, cache)
        folder.require_data(config, f"beatmeter train --resume {resume} --data DIR")
        folder.say_cache(config, echo)
    assert out is not None
    going = resume is not None or (go_on and RunFolder(out).begun(config))
    ranks, place = distributed.join(choose_device(device))
    try:
        outcome = run(
            config,
            out,
            place,
            going,
            _splits(splits),
            echo if ranks.main else quiet,
            TERMINAL if ranks.main else SILENT,
            ranks,
        )
    except KeyboardInterrupt:
        saved = RunFolder(out).last.exists()
        echo(
            f"stopped; continue with: beatmeter train --resume {out}"
            if saved
            else "stopped before the first epoch was saved"
        )
        raise SystemExit(130) from None
    distributed.leave()
    if ranks.main:
        _close(outcome)


def _sweep(
    config: RunConfig,
    out: Path,
    seeds: str | None,
    grid: tuple[str, ...],
    device: torch.device,
    splits: list[str],
) -> None:
    """Several runs, and a table of them."""
    from beatmeter.evaluation.runs import RunFolder
    from beatmeter.experiments.cells import expand, parse_axis, parse_seeds
    from beatmeter.experiments.sweep import FailedRunsError, run_cells, summary
    from beatmeter.runtime import distributed

    if distributed.started():
        raise ConfigError(
            "--seeds and --grid train many heads in one process", "Start them without a launcher."
        )
    cells = expand(
        config, [parse_axis(text, config) for text in grid], parse_seeds(seeds) if seeds else [config.seed]
    )
    failed: FailedRunsError | None = None
    try:
        run_cells(cells, out, device, splits, echo, TERMINAL)
    except FailedRunsError as error:  # told after what the others came to
        failed = error
        cells = [cell for cell in cells if RunFolder(out / cell.name).finished]
    if cells:
        click.echo(summary(cells, [out / cell.name for cell in cells]))
    several = len({cell.system for cell in cells}) > 1
    click.echo(
        f"runs: {out}" + (f"; which differences are real: beatmeter compare {out}/*" if several else "")
    )
    if failed is not None:
        raise failed


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "dataset",
    type=click.Path(),
    help="Evaluate all labelled tracks of another dataset; or where the run's own lies now.",
)
@click.option(
    "--split",
    "splits",
    default="val,test",
    show_default=True,
    help="Splits of the run's own data to predict.",
)
@click.option(
    "--cache", type=click.Path(), metavar="DIR", help="Folder of feature stores.  [default: that of the run]"
)
@corrections_option
@click.option("--json", "as_json", is_flag=True, help="Figures and findings as JSON.")
@device_option
def evaluate(
    run: Path,
    dataset: str | None,
    splits: str,
    cache: str | None,
    corrections: tuple[str, ...],
    as_json: bool,
    device: str,
) -> None:
    """Predict with the best epoch of RUN, and diagnose. Thresholds come from the validation split.

    With --corrections, predictions and evaluation under the corrected labels are written beside the others,
    named corrected-<split>.

    \b
    beatmeter evaluate runs/NAME
    beatmeter evaluate runs/NAME --data MUSIC/manifest.csv
    beatmeter evaluate runs/NAME --corrections review.csv
    """
    from beatmeter.learning.training import evaluate_run
    from beatmeter.runtime.device import choose_device

    outcome = evaluate_run(
        run, choose_device(device), _splits(splits), dataset, echo, TERMINAL, corrections, cache
    )
    _show(outcome, as_json)


def _show(outcome: Outcome, as_json: bool = False) -> None:
    """The evaluation of every split: text, or one JSON object by split."""
    from beatmeter.evaluation.report import text_of

    if as_json:
        click.echo(to_json({split: e.to_json() for split, e in outcome.evaluations.items()}))
        return
    for evaluation in outcome.evaluations.values():
        click.echo(text_of(evaluation))
    click.echo(f"run: {outcome.folder.path}")


def _close(outcome: Outcome) -> None:
    """How a training ends: what matters in ten lines; the rest is in the run folder."""
    from beatmeter.evaluation.report.closing import closing_text
    from beatmeter.evaluation.report.subject import kept_epoch

    folder, found = outcome.folder, outcome.evaluations
    judged = found.get("test") or next(iter(found.values()), None)
    click.echo(closing_text(folder.path, judged, folder.read_log(), kept_epoch(folder), columns()), nl=False)


def _splits(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in ("train", "val", "test")]
    if unknown or not names:
        raise ConfigError(
            f"no split {', '.join(map(repr, unknown)) or 'was named'}", "Splits are train, val, test."
        )
    return names
