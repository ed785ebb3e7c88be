"""beatmeter data check | split | synth | songs | works; wikimeter and audit have files of their own"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from beatmeter.cli.annotations import annotation_files
from beatmeter.cli.audit import audit
from beatmeter.cli.dataset_options import (
    class_names,
    classes_option,
    corrections_option,
    extra_option,
    jobs_option,
    show_excluded,
    tables_option,
)
from beatmeter.cli.dj import rekordbox, serato, traktor
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.cli.wikimeter import wikimeter
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count
from beatmeter.settings import DataConfig, SplitConfig

if TYPE_CHECKING:
    from beatmeter.datasets.check import Report


seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the set."
)
format_option = click.option(
    "--format",
    "suffix",
    type=click.Choice(["flac", "wav"]),
    default="flac",
    show_default=True,
    help="Audio format.",
)


@click.group()
def data() -> None:
    """Check, split and make datasets.

    \b
    beatmeter data check METER2800/
    beatmeter data split MUSIC/ --out split.csv
    beatmeter data synth SYNTH/ --clips 600
    beatmeter data songs SONGS/ --songs 400
    beatmeter data works WORKS/ --works 100 --versions 4
    beatmeter data wikimeter data/catalogues WIKIMETER/ --dry-run
    beatmeter data audit METER2800/ --features spectral-lag --out review/
    beatmeter data annotations check MUSIC/
    beatmeter data rekordbox export.xml --audio MUSIC/ --out DATA
    """


for command in (wikimeter, audit, annotation_files, rekordbox, traktor, serato):
    data.add_command(command)


@data.command(short_help="which rows are used, which are left out, and why")
@click.argument("dataset", type=click.Path())
@click.option(
    "--decode/--no-decode",
    default=True,
    show_default=True,
    help="Decode all audio, or only look whether the files are there.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@jobs_option
@classes_option
@tables_option
@extra_option
@corrections_option
def check(
    dataset: str,
    decode: bool,
    as_json: bool,
    jobs: int,
    classes: str,
    tables: str | None,
    extra: tuple[str, ...],
    corrections: tuple[str, ...],
) -> None:
    """Account for every row of DATASET: which are used, which are left out, and why.

    A dataset is a folder with METER2800 or WIKIMETER tables, a folder with a manifest.csv, a folder of audio
    files (sub-folders named by class are labels), or one table.

    \b
    beatmeter data check METER2800/ --jobs 4
    beatmeter data check METER2800/ --extra-data WIKIMETER/ --json > check.json
    beatmeter data check MUSIC/ --no-decode
    beatmeter data check MUSIC/ --corrections review.csv

    Exit status: 0 every row can be used, 1 some are left out, 2 the dataset cannot be used.
    """
    from pathlib import Path

    from beatmeter.datasets.check import check as examine

    config = DataConfig(path=dataset, extra=extra, corrections=corrections, classes=int(tables or 0))
    report = examine(Path(dataset), config, class_names(classes), decode, jobs, TERMINAL)
    if as_json:
        click.echo(to_json(report.to_json()))
    else:
        _show(report)
    raise SystemExit(report.status)


@data.command(short_help="split by groups, balanced over the classes")
@click.argument("dataset", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), help="The split file to write (CSV: id, group, split)."
)
@click.option("--val", default=SplitConfig().val, show_default=True, help="Share for validation.")
@click.option("--test", default=SplitConfig().test, show_default=True, help="Share for test.")
@click.option("--seed", default=SplitConfig().seed, show_default=True, help="Seed of the split.")
@click.option(
    "--cache",
    "cache_dir",
    type=click.Path(),
    default="cache",
    show_default=True,
    help="Folder that remembers the hashes of files.",
)
@jobs_option
@classes_option
@tables_option
@extra_option
@corrections_option
def split(
    dataset: str,
    out: str,
    val: float,
    test: float,
    seed: int,
    cache_dir: str,
    jobs: int,
    classes: str,
    tables: str | None,
    extra: tuple[str, ...],
    corrections: tuple[str, ...],
) -> None:
    """Split DATASET by groups, balanced over the classes, and write the split to a file.

    Tracks that bring a split keep it. Use the file with --set split.file=FILE.

    \b
    beatmeter data split MUSIC/ --out split.csv
    beatmeter data split MUSIC/ --out split.csv --val 0.1 --test 0.2 --seed 1

    Exit status: 0 every row is in the file, 1 some are left out (they are listed), 2 the dataset cannot be
    used.
    """
    from pathlib import Path

    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.splits import split_dataset, write_split
    from beatmeter.errors import DataError

    config = DataConfig(path=dataset, extra=extra, corrections=corrections, classes=int(tables or 0))
    opened = open_dataset(Path(dataset), config, class_names(classes))
    with TERMINAL.track("reading", len(opened.tracks)) as tick:
        result = split_dataset(
            opened, SplitConfig(val=val, test=test, seed=seed), Path(cache_dir), jobs, tick
        )
    if not result.tracks:
        raise DataError(f"{dataset} has no tracks to split", f"`beatmeter data check {dataset}` says why.")
    show_excluded(result.excluded)
    digest = write_split(Path(out), result.tracks)
    counts = ", ".join(f"{len(result.of_split(name))} {name}" for name in ("train", "val", "test"))
    click.echo(f"{out}: {counts}, {len({t.group for t in result.tracks})} groups, sha256 {digest}")
    raise SystemExit(1 if result.excluded else 0)


@data.command(short_help="synthesise clips with exact meter, bars and beats")
@click.argument("out", type=click.Path())
@click.option("--clips", type=click.IntRange(min=1), default=600, show_default=True, help="Number of clips.")
@seed_option
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=30.0, show_default=True, help="Length of every clip."
)
@format_option
@click.option(
    "--mix",
    type=click.Choice(["even", "music", "hard", "layers"]),
    default="even",
    show_default=True,
    help="Classes in equal numbers, as often as in music, or in equal numbers of what is hard to hear: slow "
    "bars, rubato, dances, two meters, clips from 3 s on; or two layers, in two meters or in one.",
)
@jobs_option
def synth(out: str, clips: int, seed: int, seconds: float, suffix: str, mix: str, jobs: int) -> None:
    """Synthesise a data set to the folder OUT: audio, a manifest, and the exact beats of every clip.

    The set is split by clip into train, val and test. Safe to stop and run again: complete clips are kept,
    and a set can be made longer. The same seed always gives the same clips.

    \b
    beatmeter data synth SYNTH/ --clips 600
    beatmeter data synth SYNTH/ --clips 6000 --jobs 4
    beatmeter data synth OTHER/ --clips 60 --seed 7 --seconds 10
    beatmeter data synth BEATS/ --clips 2400 --seed 5 --mix music
    beatmeter data synth HARD/ --clips 4000 --mix hard
    """
    from pathlib import Path

    from beatmeter.datasets.synthetic import SynthPlan, synthesise

    with TERMINAL.track("synthesising", clips) as tick:
        made = synthesise(
            Path(out), clips, SynthPlan(seed=seed, seconds=seconds, format=suffix, mix=mix), jobs, tick
        )
    click.echo(f"{made.manifest}: {count(made.made, 'clip')} made, {made.kept} kept")


@data.command(short_help="synthesise whole songs with exact structure")
@click.argument("out", type=click.Path())
@click.option("--songs", type=click.IntRange(min=1), default=100, show_default=True, help="Number of songs.")
@seed_option
@format_option
@click.option(
    "--excerpt",
    type=click.FloatRange(min=10, max=300),
    help="Keep so many seconds of each song, from a place of its own.",
)
@click.option(
    "--form",
    default="",
    help="Of all songs: pop, dance, strophic, aaba, rondo, through-composed, ballad, eighths, sixteenths, "
    "slow or fast.  [default: drawn for each; the last five by name alone]",
)
@jobs_option
def songs(out: str, songs: int, seed: int, suffix: str, excerpt: float | None, form: str, jobs: int) -> None:
    """Synthesise whole songs of 2 to 5 minutes to the folder OUT: audio, a manifest, and their exact
    structure (beats, bars, sections with letter and function, build-ups and drops).

    The set is split by song into train, val and test. Safe to stop and run again: complete songs are kept,
    and a set can be made longer. The same seed always gives the same songs.

    \b
    beatmeter data songs SONGS/ --songs 400 --jobs 2
    beatmeter data songs OTHER/ --songs 20 --seed 7
    beatmeter data songs BARS/ --songs 1000 --excerpt 60
    beatmeter data songs SLOW/ --songs 100 --form ballad
    """
    from pathlib import Path

    from beatmeter.datasets.synthetic_songs import SongPlan, synthesise_songs

    plan = SongPlan(seed=seed, format=suffix, excerpt=excerpt or 0.0, form=form)
    with TERMINAL.track("synthesising", songs) as tick:
        made = synthesise_songs(Path(out), songs, plan, jobs, tick)
    click.echo(f"{made.manifest}: {count(made.made, 'song')} made, {made.kept} kept")


@data.command(short_help="synthesise works in several versions, for similarity")
@click.argument("out", type=click.Path())
@click.option("--works", type=click.IntRange(min=1), default=100, show_default=True, help="Number of works.")
@click.option(
    "--versions",
    type=click.IntRange(2, 100),
    default=4,
    show_default=True,
    help="Versions of every work: as written, on a keyboard, by an ensemble, as a cover, on a keyboard ...",
)
@seed_option
@click.option(
    "--seconds", type=click.FloatRange(2, 600), default=20.0, show_default=True, help="Length of every clip."
)
@format_option
@jobs_option
def works(out: str, works: int, versions: int, seed: int, seconds: float, suffix: str, jobs: int) -> None:
    """Synthesise works in several versions to the folder OUT, for similarity: a version keeps the piece and
    redraws key, tempo, style, players, place in the piece and room.

    The manifest's column `work` says what belongs together; its versions stay in one split. Safe to stop and
    run again: complete clips are kept, and works and versions can be added. The same seed always gives the
    same clips.

    \b
    beatmeter data works WORKS/ --works 200 --versions 4 --jobs 2
    beatmeter train --frozen WORKS/ --set task.name=similarity --out runs/similar
    """
    from beatmeter.datasets.synthetic_works import WorkPlan, synthesise_works

    with TERMINAL.track("synthesising", works * versions) as tick:
        plan = WorkPlan(seed=seed, seconds=seconds, format=suffix)
        made = synthesise_works(out, works, versions, plan, jobs, tick)
    click.echo(f"{made.manifest}: {count(made.made, 'clip')} made, {made.kept} kept")


def _show(report: Report) -> None:
    from beatmeter.datasets.corrections import told

    dataset = report.dataset
    show_excluded(dataset.excluded)
    value = report.to_json()
    several = f", {value['several_classes']} of several classes" if value["several_classes"] else ""
    hours = (
        ""
        if report.seconds is None
        else f", {report.seconds / 3600:.2f} h of audio"
        if report.seconds >= 3600
        else f", {report.seconds / 60:.1f} min of audio"
    )
    tracks = f"{count(len(dataset.tracks), 'track')} in {count(value['groups'], 'group')}"
    click.echo(f"{dataset.name} ({dataset.kind}): {tracks}{several}{hours}, sha256 {dataset.sha256}")
    for done in dataset.corrections:
        stray = (
            f", {len(done['not here'])} not of this dataset ({', '.join(done['not here'][:3])})"
            if done["not here"]
            else ""
        )
        click.echo(f"corrected by {done['file']}: {told(done)}{stray}")
        for id, flags in done.get("doubtful", {}).items():
            click.echo(f"doubtful: {id}: {', '.join(flags)}")
    rows = report.counts()
    columns = [*report.classes, *(["-"] if any("-" in n for _, _, n in rows) else [])]
    width = max([len("source"), *(len(source) for source, _, _ in rows)])
    click.echo(f"{'source':{width}}  split  {'  '.join(f'{c:>5}' for c in columns)}  total")
    for source, split, n in rows:
        click.echo(
            f"{source:{width}}  {split:5}  {'  '.join(f'{n.get(c, 0):5}' for c in columns)}  "
            f"{sum(n.values()):5}"
        )
    for text in report.warnings():
        click.echo(f"note: {text}")
    if dataset.excluded:
        click.echo(
            f"{len(dataset.excluded)} left out: "
            f"{', '.join(f'{n} {kind}' for kind, n in report.reasons.most_common())}"
        )
    if report.status == 2:
        echo("nothing is left to use")
