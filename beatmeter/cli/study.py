"""beatmeter study"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import TERMINAL, device_option, echo
from beatmeter.errors import ConfigError
from beatmeter.runtime.artifacts import to_json

if TYPE_CHECKING:
    from beatmeter.experiments.ablation.plan import Plan

PATH = click.Path(path_type=Path)
TABLES, FIGURES = ("txt", "md", "csv", "json"), ("png", "svg")  # what is written, by suffix
MODEL = "embedded, "  # the systems that a further backbone repeats


@click.command()
@click.argument("dataset", type=PATH)
@click.option(
    "--on",
    "others",
    multiple=True,
    type=PATH,
    metavar="DATASET",
    help="Further data to test on, never to choose by; may be repeated.",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="A further backbone, in every setting of the embedded one.",
)
@click.option(
    "--only",
    "only",
    multiple=True,
    metavar="PATTERN",
    help="Only systems whose name matches, such as '*lag 30 s*'; may be repeated.",
)
@click.option("--cache", type=PATH, default="cache", show_default=True, help="Folder of feature stores.")
@click.option(
    "--out", type=PATH, default="runs/study", show_default=True, help="Where runs, tables and figures go."
)
@click.option("--seeds", metavar="0-4", help="Seeds of every system.  [default: 0-2]")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change one setting of all systems; may be repeated.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that work at a time.  [default: one for each GPU, else for each core]",
)
@device_option
def study(
    dataset: Path,
    others: tuple[Path, ...],
    backbones: tuple[str, ...],
    only: tuple[str, ...],
    cache: Path,
    out: Path,
    seeds: str | None,
    assignments: tuple[str, ...],
    jobs: int | None,
    device: str,
) -> None:
    """Compare backbones, poolings and regimes on DATASET under equal conditions, beside a majority and a
    tempogram baseline.

    Every system is a run with a few seeds; finished runs are kept, so the same command goes on where it was
    stopped. Written to --out: table.txt, .md, .csv, .json and one figure for every set.

    \b
    beatmeter study data/synth
    beatmeter study data/synth --on my-music/ --only '*lag*' --seeds 0-4
    beatmeter study METER2800/ --backbone m-a-p/MERT-v1-95M --backbone m-a-p/MERT-v1-330M
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.evaluation.figures import to_png, to_svg
    from beatmeter.experiments.ablation.execution import execute
    from beatmeter.experiments.ablation.plan import load_plan
    from beatmeter.experiments.cells import parse_seeds
    from beatmeter.experiments.study import OWN, judge, predict_elsewhere, run_baselines, to_csv
    from beatmeter.experiments.study.tables import study_figure, study_markdown, study_text
    from beatmeter.runtime.atomic import require_writable, write_bytes, write_text
    from beatmeter.runtime.device import choose_device

    plan = _chosen(load_plan("comparison"), backbones, only)
    base = plan.changed((), assignments)
    own = open_dataset(dataset, base.data, base.task.meters)
    elsewhere = [
        open_dataset(path, replace(base.data, extra=(), corrections=()), base.task.meters) for path in others
    ]
    names = [other.name for other in elsewhere]
    if len(set(names)) < len(names) or OWN in names:
        raise ConfigError(
            f"two of the data sets of --on have the same name, or one is called {OWN!r}",
            "Rename one of the folders.",
        )
    require_writable(
        *(out / f"table.{kind}" for kind in TABLES),
        *(out / f"figure-{name}.{kind}" for name in (OWN, *names) for kind in FIGURES),
    )
    cells = plan.cells(base, dataset, cache, out, seeds=parse_seeds(seeds) if seeds else ())
    place = choose_device(device)
    try:
        done = execute(cells, out, place, OWN, jobs or 0, echo, TERMINAL)
        runs = {name: folders for name, folders in done.runs.items() if folders}
        if not runs:
            raise ConfigError(
                "no system came to its end", "The reasons are above; run the same command again to go on."
            )
        for path, other in zip(others, elsewhere, strict=True):
            predict_elsewhere([run for folders in runs.values() for run in folders], path, other, place, echo)
        first = plan.baseline if plan.baseline in runs else next(iter(runs))
        baselines = run_baselines(runs[first][0], own, elsewhere, base.task.meters, out, jobs or 1, TERMINAL)
    except KeyboardInterrupt:
        echo("stopped; the same command goes on from here")
        raise SystemExit(130) from None
    sets = judge(runs, baselines, own, elsewhere, plan.metrics, first)
    for kind, table in zip(
        TABLES,
        (study_text(sets), study_markdown(sets), to_csv(sets), to_json([s.to_json() for s in sets]) + "\n"),
        strict=True,
    ):
        write_text(out / f"table.{kind}", table)
    for name, one in zip((OWN, *names), sets, strict=True):
        figure = study_figure(one)
        write_bytes(out / f"figure-{name}.png", to_png(figure))
        write_text(out / f"figure-{name}.svg", to_svg(figure, f"study-{name}"))
    click.echo(study_text(sets), nl=False)
    echo(f"tables and figures: {out}")
    raise SystemExit(1 if done.failures else 0)


def _chosen(plan: Plan, backbones: tuple[str, ...], only: tuple[str, ...]) -> Plan:
    """The plan with the systems of further backbones, and only those that match, with those that they start
    from."""
    systems, seeds, starts = dict(plan.systems), dict(plan.own_seeds), dict(plan.starts)
    for backbone in backbones:
        new = {
            name: f"{Path(backbone).name}, {name.removeprefix(MODEL)}"
            for name in plan.systems
            if name.startswith(MODEL)
        }
        for name, its in new.items():
            values = plan.systems[name]
            systems[its] = {**values, "features": {**values.get("features", {}), "backbone": backbone}}
        seeds |= {new[name]: own for name, own in plan.own_seeds.items() if name in new}
        starts |= {new[name]: new[first] for name, first in plan.starts.items() if name in new}
    if only:
        wanted = {name for name in systems if any(fnmatch(name, pattern) for pattern in only)}
        wanted |= {starts[name] for name in wanted if name in starts}
        systems = {name: values for name, values in systems.items() if name in wanted}
    if not systems:
        raise ConfigError(f"no system matches {' or '.join(only)}", f"Systems: {'; '.join(plan.systems)}.")
    starts = {name: first for name, first in starts.items() if name in systems}
    baseline = plan.baseline if plan.baseline in systems else next(iter(systems))
    return replace(plan, systems=systems, own_seeds=seeds, starts=starts, baseline=baseline)
