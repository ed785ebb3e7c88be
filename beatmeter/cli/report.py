"""beatmeter report: one page, or a text, on a run or a file of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.lab_options import (
    PATH,
    audio_options,
    command_line,
    corrections_option,
    find_audio,
    json_option,
    seed_option,
    split_option,
)
from beatmeter.cli.options import echo
from beatmeter.errors import ConfigError
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.evaluation.report.page import Drawn
    from beatmeter.schema import Items


@click.command()
@click.argument("where", type=PATH, metavar="RUN")
@split_option
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="The page.  [default: report.html in the run, FILE.report.html beside a file]",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--figures", type=PATH, metavar="DIR", help="Write every figure as PNG and SVG too.")
@corrections_option
@audio_options
@click.option("--text", "as_text", is_flag=True, help="Print the report instead of making a page.")
@json_option
@seed_option
def report(
    where: Path,
    split: str | None,
    out: Path | None,
    show: bool,
    figures: Path | None,
    corrections: Path | None,
    audio: Path | None,
    seconds: float,
    as_text: bool,
    as_json: bool,
    seed: int,
) -> None:
    """Make one page that answers at a glance: how good, how sure, which errors, output leakage or
    not, which thresholds.

    The page is one file that works offline, without scripts; excerpts of the worst clips are inside it.

    \b
    beatmeter report runs/NAME --open
    beatmeter report predictions.csv --audio MUSIC/ --figures figures/
    beatmeter report predictions.csv --text
    """
    from beatmeter.evaluation.records import open_records
    from beatmeter.evaluation.report.assessment import of_meter
    from beatmeter.evaluation.report.subject import Subject

    record = open_records(where, split)
    if not of_meter(record):
        if corrections is not None:
            raise ConfigError(
                "--corrections are for labels of meters here",
                "Of beats `beatmeter evaluate RUN --corrections FILE` says what corrections change.",
            )
        _report_column(where, record, out, show, figures, as_text, as_json, seed)
        return
    subject = Subject.read(where, split, seed=seed, report=echo)
    if corrections is not None:
        subject = subject.corrected_by(corrections, seed=seed)
    if as_text or as_json:
        from beatmeter.evaluation.report import evaluation_text

        shown = [subject.evaluation, *([subject.corrected] if subject.corrected else [])]
        if as_json:
            value = (
                {"original": shown[0].to_json(), "corrected": shown[1].to_json()}
                if len(shown) > 1
                else shown[0].to_json()
            )
            click.echo(to_json(value))
        else:
            click.echo("\n".join(evaluation_text(e) for e in shown), nl=False)
        return
    from beatmeter.evaluation.report.run_figures import run_figures
    from beatmeter.evaluation.report.run_report import run_page

    out = _page_of(where, out)
    drawn = run_figures(subject, seed)
    locate = find_audio(subject.evaluation.predictions, audio, where, seconds)
    _hand_over(run_page(subject, locate, seconds, command_line(), drawn), out, drawn, figures, show)


def _page_of(where: Path, out: Path | None) -> Path:
    """Where the page goes, once it is known that a file can appear there: before figures are drawn."""
    from beatmeter.runtime.atomic import require_writable

    out = out or (where / "report.html" if where.is_dir() else where.with_suffix(".report.html"))
    require_writable(out)
    return out


def _hand_over(
    page: str, out: Path, drawn: Mapping[str, Sequence[Drawn]], figures: Path | None, show: bool
) -> None:
    """Write a page and its figures, say where they are, and open the page if that is wanted."""
    from beatmeter.evaluation.report.run_figures import write_figures
    from beatmeter.runtime.atomic import write_text

    write_text(out, page)
    if figures is not None:
        written = write_figures([d for group in drawn.values() for d in group], figures)
        echo(f"{count(len(written), 'figure')} in {figures}")
    click.echo(str(out))
    if show:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())


def _report_column(
    where: Path,
    record: Items,
    out: Path | None,
    show: bool,
    figures: Path | None,
    as_text: bool,
    as_json: bool,
    seed: int,
) -> None:
    """The report of a record that is none of meter."""
    from beatmeter.evaluation.report import assessment_text
    from beatmeter.evaluation.report.assessment_page import (
        assess_file,
        assessment_figures,
        assessment_page,
        history_of,
    )

    found = assess_file(where, record, seed)
    if as_text or as_json:
        click.echo(to_json(found.to_json()) if as_json else assessment_text(found), nl=as_json)
        return
    out = _page_of(where, out)
    drawn = assessment_figures(found, history_of(where))
    _hand_over(assessment_page(where, found, command_line(), drawn), out, drawn, figures, show)
