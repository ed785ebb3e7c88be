"""beatmeter ablate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import TERMINAL, device_option, echo, read_recipe, settings_options
from beatmeter.errors import ConfigError
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.experiments.ablation.result import Ablation


@click.command()
@click.argument("plan", required=False, metavar="PLAN")
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option("--list", "listing", is_flag=True, help="Say which plans ship, and leave.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default="cache",
    show_default=True,
    help="Folder of feature stores.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where runs, tables and the figure go.  [default: runs/ablations/PLAN]",
)
@click.option(
    "--extra-data",
    "extra",
    multiple=True,
    type=click.Path(),
    help="The further data of plans that compare with and without; may be repeated.",
)
@click.option("--seeds", metavar="0-4", help="Seeds of every system.  [default: what the plan says]")
@settings_options
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    default="val",
    show_default=True,
    help="The split of the table; test is for reporting only.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that train at a time.  [default: one for each GPU, else for each core]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@device_option
def ablate(
    plan: str | None,
    dataset: Path | None,
    listing: bool,
    cache: Path,
    out: Path | None,
    extra: tuple[str, ...],
    seeds: str | None,
    recipe: tuple[str, ...],
    assignments: tuple[str, ...],
    split: str,
    jobs: int | None,
    as_json: bool,
    device: str,
) -> None:
    """Train DATASET with every setting of PLAN and several seeds, and say which differences are real.

    PLAN is one that ships (--list) or a TOML file. Every cell is an ordinary run; finished ones are kept, so
    the same command goes on where it was stopped. Written to --out: table-<split>.txt, .md, .csv, .json and
    figure-<split>.png, .svg.

    \b
    beatmeter ablate smoothing data/synth
    beatmeter ablate extra-data METER2800/ --extra-data WIKIMETER/ --seeds 0-9
    beatmeter ablate layers METER2800/ --set features.backbone=m-a-p/MERT-v1-95M
    beatmeter ablate my-plan.toml data/synth --split test

    Exit status: 0 done, 1 some cells failed (they are named, the table is of the others), 2 nothing could be
    done.
    """
    from beatmeter.experiments.ablation.plan import load_plan, shipped_plans

    if listing:
        for name in shipped_plans():
            shown = load_plan(name)
            names = [*shown.systems, *(["every single layer"] if shown.each_layer else [])]
            more = "; needs --extra-data" if shown.needs_extra else ""
            click.echo(
                f"{name}: {shown.question}\n    {'; '.join(names)} ({count(len(shown.seeds), 'seed')}{more})"
            )
        return
    if plan is None or dataset is None:
        raise ConfigError(
            "ablate needs a PLAN and a DATASET",
            f"Plans: {', '.join(shipped_plans())}. For instance: beatmeter ablate smoothing data/synth",
        )
    chosen = load_plan(plan)
    base = chosen.changed([read_recipe(name) for name in recipe], assignments)

    from beatmeter.experiments.ablation.execution import execute
    from beatmeter.experiments.ablation.result import conclude
    from beatmeter.experiments.cells import parse_seeds
    from beatmeter.features.model import FeatureModel
    from beatmeter.runtime import distributed
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.runtime.device import choose_device

    if distributed.started():
        raise ConfigError("ablate starts processes of its own", "Start it without a launcher, with --jobs.")
    out = out or Path("runs") / "ablations" / chosen.name
    require_writable(*_files(out, split))
    place = choose_device(device)
    layers = FeatureModel(base.features, place).outline.n_layers if chosen.each_layer else 0
    systems = chosen.cells(base, dataset, cache, out, extra, layers, parse_seeds(seeds) if seeds else ())
    try:
        done = execute(systems, out, place, split, jobs or 0, echo, TERMINAL)
    except KeyboardInterrupt:
        echo("stopped; the same command goes on from here")
        raise SystemExit(130) from None
    missing = {failure.cell: failure.reason for failure in done.failures}
    features = dict.fromkeys(
        FeatureModel(cells[0].config.features, place).describe() for cells in systems.values()
    )
    found = conclude(chosen, done.runs, split, "; ".join(features), missing)
    text = _write(found, out)
    click.echo(to_json(found.to_json()) if as_json else text, nl=as_json)
    echo(f"tables and figure: {out}")
    raise SystemExit(1 if missing else 0)


def _files(out: Path, split: str) -> list[Path]:
    """The tables and figures of a split."""
    return [
        out / f"{name}-{split}.{kind}"
        for name, kinds in (("table", ("txt", "md", "csv", "json")), ("figure", ("png", "svg")))
        for kind in kinds
    ]


def _write(found: Ablation, out: Path) -> str:
    """Tables and figure as files; the table for the terminal."""
    from beatmeter.evaluation.figures import to_png, to_svg
    from beatmeter.experiments.ablation.figure import ablation_figure
    from beatmeter.experiments.ablation.tables import ablation_markdown, ablation_text
    from beatmeter.runtime.atomic import write_bytes

    text, figure = ablation_text(found), ablation_figure(found)
    tables = (text, ablation_markdown(found), found.to_csv(), to_json(found.to_json()) + "\n")
    contents = (
        *(table.encode() for table in tables),
        to_png(figure),
        to_svg(figure, f"ablation-{found.plan.name}").encode(),
    )
    for path, content in zip(_files(out, found.split), contents, strict=True):
        write_bytes(path, content)
    return text
