"""beatmeter compare, gate: one system against others, on the predictions of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from beatmeter.cli.lab_options import (
    PATH,
    audio_options,
    command_line,
    common_option,
    corrections_option,
    find_audio,
    json_option,
    open_corrected,
    seed_option,
    split_option,
)
from beatmeter.cli.options import echo
from beatmeter.cli.systems import gather, short_names
from beatmeter.errors import EvaluationError, shown
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count


@click.command()
@click.argument("systems", nargs=-1, required=True, metavar="RUN RUN ...")
@split_option
@common_option
@click.option("--all-pairs", is_flag=True, help="Test all against all, not only against the first.")
@click.option("--metric", "metrics", multiple=True, help="A metric to test; may be repeated.")
@click.option("--separate", is_flag=True, help="Keep runs apart that differ in nothing but their seed.")
@corrections_option
@click.option("--changes", type=int, default=10, show_default=True, help="How many changed clips to list.")
@click.option(
    "--html", type=PATH, metavar="FILE", help="Write a page with figures and the changed clips to listen to."
)
@click.option("--figures", type=PATH, metavar="DIR", help="Write the figures as PNG and SVG.")
@audio_options
@json_option
@seed_option
def compare(
    systems: tuple[str, ...],
    split: str | None,
    common: bool,
    all_pairs: bool,
    metrics: tuple[str, ...],
    separate: bool,
    corrections: Path | None,
    changes: int,
    html: Path | None,
    figures: Path | None,
    audio: Path | None,
    seconds: float,
    as_json: bool,
    seed: int,
) -> None:
    """Say which system is better, or that this cannot be known. The first is what the others are compared
    with.

    A RUN is a run folder or a predictions file; NAME=RUN,RUN,... is one system with several seeds. Runs that
    differ in their seed alone are taken as one system.

    \b
    beatmeter compare runs/frozen runs/lora
    beatmeter compare frozen=runs/f0,runs/f1 lora=runs/l0,runs/l1 --html comparison.html
    beatmeter compare runs/mine theirs.csv --common
    """
    from beatmeter.evaluation.comparison.compare import DEFAULT
    from beatmeter.evaluation.comparison.compare import compare as run
    from beatmeter.evaluation.report.lab_text import comparison_text

    members = gather(systems, group=not separate)
    if len(members) == 1 < len(systems):
        raise EvaluationError(
            f"{', '.join(map(shown, systems))} differ in nothing but their seed: they are one system",
            "Name another system to compare it with, or use --separate.",
        )
    if _of_records(members, split):
        if html is not None or figures is not None or corrections is not None:
            raise EvaluationError(
                "--html, --figures and --corrections are for scores of classes",
                "Leave them out; --json has every number.",
            )
        _compare_records(members, split, metrics, common, all_pairs, as_json, seed)
        return
    loaded = {
        name: [open_corrected(path, split, corrections) for path in paths] for name, paths in members.items()
    }
    found = run(loaded, metrics or DEFAULT, common, all_pairs, seed=seed)
    click.echo(to_json(found.to_json()) if as_json else comparison_text(found, changes), nl=as_json)
    if html is not None:
        from beatmeter.evaluation.report.comparison_report import comparison_page
        from beatmeter.runtime.atomic import write_text

        first = next(iter(members.values()))[0]
        locate = find_audio(found.systems[0].runs[0], audio, first, seconds)
        title = f"{found.systems[0].name} against {', '.join(s.name for s in found.systems[1:])}"
        write_text(html, comparison_page(found, title, locate, seconds, command_line()))
        echo(f"page: {html}")
    if figures is not None:
        from beatmeter.evaluation.report.comparison_report import comparison_figures, pair_figures
        from beatmeter.evaluation.report.run_figures import write_figures

        drawn = [*comparison_figures(found), *(d for pair in found.pairs for d in pair_figures(found, pair))]
        echo(f"{count(len(write_figures(drawn, figures)), 'figure')} in {figures}")


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.option(
    "--against",
    type=PATH,
    required=True,
    metavar="RUN",
    help="What is there already: a run folder or a predictions file.",
)
@split_option
@common_option
@corrections_option
@json_option
@seed_option
def gate(
    run: Path,
    against: Path,
    split: str | None,
    common: bool,
    corrections: Path | None,
    as_json: bool,
    seed: int,
) -> None:
    """Say whether RUN is worth joining an ensemble: different enough, and bringing more than it costs.

    It passes when both agree (both right or both wrong) on 65 to 80 % of the items, and its gains are more
    than 1.5 times its losses.

    \b
    beatmeter gate runs/lora --against arbiter.csv

    Exit status: 0 passed, 1 not passed.
    """
    from beatmeter.evaluation.comparison.gate import gate as measure
    from beatmeter.evaluation.report.lab_text import gate_text

    names = short_names([run, against])
    found = measure(
        open_corrected(run, split, corrections),
        open_corrected(against, split, corrections),
        (names[0], names[1]),
        common,
        seed=seed,
    )
    click.echo(to_json(found.to_json()) if as_json else gate_text(found), nl=as_json)
    raise SystemExit(0 if found.passed else 1)


def _of_records(members: Mapping[str, Sequence[Path]], split: str | None) -> bool:
    """Whether the first system's record is of another kind than scores of classes."""
    from beatmeter.evaluation.records import open_records
    from beatmeter.schema import ClassPredictions

    return not isinstance(open_records(next(iter(members.values()))[0], split), ClassPredictions)


def _compare_records(
    members: Mapping[str, Sequence[Path]],
    split: str | None,
    metrics: tuple[str, ...],
    common: bool,
    all_pairs: bool,
    as_json: bool,
    seed: int,
) -> None:
    from beatmeter.evaluation.comparison.records import compare_records
    from beatmeter.evaluation.records import open_records
    from beatmeter.evaluation.report.lab_text import records_text

    loaded = {name: [open_records(path, split) for path in paths] for name, paths in members.items()}
    found = compare_records(loaded, metrics, common, all_pairs, seed=seed)
    click.echo(to_json(found.to_json()) if as_json else records_text(found), nl=as_json)
