"""beatmeter data wikimeter"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from beatmeter.cli.dataset_options import class_names, classes_option, jobs_option
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.datasets.wikimeter.building import Step


@click.command(short_help="download the works of a catalogue as labelled clips")
@click.argument("catalogue", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--dry-run", is_flag=True, help="Only list what would be searched, and which lengths would be accepted."
)
@click.option(
    "--class", "only", multiple=True, metavar="METER", help="Only works with this meter; may be repeated."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many works.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1, max=50),
    default=5,
    show_default=True,
    help="Search results to try per work.",
)
@click.option(
    "--search",
    default="ytsearch",
    show_default=True,
    help="Where yt-dlp searches: its search prefix, for instance scsearch.",
)
@jobs_option
@classes_option
def wikimeter(
    catalogue: str,
    out: str,
    dry_run: bool,
    only: tuple[str, ...],
    limit: int | None,
    candidates: int,
    search: str,
    jobs: int,
    classes: str,
) -> None:
    """Search and download the works of CATALOGUE, cut them into 30-s segments, and label them in the folder
    OUT.

    CATALOGUE is a CSV table (artist, title, meters, seconds), or a folder of them. OUT is a dataset that
    every command takes. What you may do with the music is for you to know: licences.csv keeps what each
    source says. Safe to stop at any moment and run again: only what is missing is done.

    \b
    beatmeter data wikimeter data/catalogues WIKIMETER/ --dry-run
    beatmeter data wikimeter data/catalogues WIKIMETER/ --class 7 --limit 10
    beatmeter data wikimeter my-works.csv WIKIMETER/ --search scsearch

    Exit status: 0 every work is there, 1 some are not (they are listed), 2 nothing could be done.
    """
    from pathlib import Path

    from beatmeter.datasets.labels import to_class
    from beatmeter.datasets.wikimeter.building import build, plan
    from beatmeter.datasets.wikimeter.catalogue import read_catalogue
    from beatmeter.datasets.wikimeter.downloader import YtDlp
    from beatmeter.errors import DataError

    names = class_names(classes)
    wanted = {to_class(name, names) for name in only}
    works = [
        work for work in read_catalogue(Path(catalogue), names) if not wanted or wanted & set(work.meters)
    ][:limit]
    if not works:
        raise DataError(f"{catalogue} has no works with the meter {' or '.join(only)}")
    steps = plan(works, Path(out))
    if dry_run:
        for step in steps:
            click.echo(_line(step))
        waiting = [step for step in steps if not step.done]
        click.echo(
            f"{len(waiting)} of {count(len(steps), 'work')} to do, about "
            f"{count(sum(step.segments for step in waiting), 'segment')}"
        )
        return
    try:
        with TERMINAL.track("works", len(works)) as tick:
            outcome = build(works, Path(out), YtDlp(search), candidates, jobs, tick)
    except KeyboardInterrupt:
        echo("stopped; run the same command again to go on")
        raise SystemExit(130) from None
    for song, reason in outcome.without.items():
        click.echo(f"not there: {song}: {reason}")
    summary = (
        f"{count(len(outcome.made), 'work')} made, {len(outcome.kept)} kept, {len(outcome.without)} not there"
    )
    click.echo(
        f"{Path(out) / 'wikimeter.tab'}: {summary}; {count(outcome.segments, 'segment')}; every refusal is "
        f"in {Path(out) / 'rejected.csv'}"
    )
    raise SystemExit(0 if not outcome.without else 1 if outcome.made or outcome.kept else 2)


def _line(step: Step) -> str:
    from beatmeter.datasets.labels import format_labels
    from beatmeter.datasets.wikimeter.building import clock

    work = step.work
    where = (
        "there already" if step.done else f"take {work.source}" if work.source else f"search {work.query!r}"
    )
    lengths = " to ".join(clock(seconds) for seconds in step.accepted)
    return (
        f"[{format_labels(work.meters, work.primary)}] {work.song}: {where}, accept {lengths}, "
        f"{count(step.segments, 'segment')}"
    )
