"""beatmeter data rekordbox | traktor | serato: the library of a DJ program as a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.dataset_options import jobs_option
from beatmeter.cli.options import TERMINAL
from beatmeter.errors import shown

if TYPE_CHECKING:
    from beatmeter.datasets.dj import Library
    from beatmeter.datasets.dj.anlz import Analysis

_path = click.Path(path_type=Path)
_audio = click.option(
    "--audio", required=True, type=_path, help="The folder with the music that the library names."
)
_out = click.option(
    "--out", required=True, type=_path, help="Folder to make: links to the audio, annotations, manifest."
)


@click.command(short_help="a data set of a Rekordbox collection (its XML)")
@click.argument("export", type=_path)
@_audio
@_out
@click.option(
    "--anlz", type=_path, help="A folder of ANLZ files (USBANLZ): beats by their times, and phrases."
)
@jobs_option
def rekordbox(export: Path, audio: Path, out: Path, anlz: Path | None, jobs: int) -> None:
    """Make a data set of a Rekordbox collection: EXPORT is its XML (File, Export Collection in xml format).

    Beat grids become beats and downbeats, cues and loops become events under their names. Every grid is
    held against the onsets of its file. What does not fit is left out and listed.

    \b
    beatmeter data rekordbox export.xml --audio MUSIC/ --out DATA
    beatmeter data rekordbox export.xml --audio MUSIC/ --out DATA --anlz PIONEER/USBANLZ --jobs 4

    Exit status: 0 every track is used, 1 some are left out, 2 none can be used.
    """
    from beatmeter.datasets.dj import read_analyses, read_rekordbox

    library = read_rekordbox(export)
    analyses, unread = read_analyses(anlz) if anlz is not None else ({}, [])
    for name, reason in unread:
        click.echo(f"left out: {name}: {reason}")
    _build(library, audio, out, jobs, analyses)


@click.command(short_help="a data set of a Traktor collection (collection.nml)")
@click.argument("collection", type=_path)
@_audio
@_out
@jobs_option
def traktor(collection: Path, audio: Path, out: Path, jobs: int) -> None:
    """Make a data set of a Traktor collection: COLLECTION is its collection.nml.

    \b
    beatmeter data traktor collection.nml --audio MUSIC/ --out DATA

    Exit status: 0 every track is used, 1 some are left out, 2 none can be used.
    """
    from beatmeter.datasets.dj import read_traktor

    _build(read_traktor(collection), audio, out, jobs)


@click.command(short_help="a data set of the tags that Serato keeps in audio files")
@click.argument("music", type=_path)
@_out
@jobs_option
def serato(music: Path, out: Path, jobs: int) -> None:
    """Make a data set of the tags that Serato keeps in the audio files under MUSIC.

    \b
    beatmeter data serato MUSIC/ --out DATA

    Exit status: 0 every file is used, 1 some are left out, 2 none can be used.
    """
    from beatmeter.datasets.dj import read_serato

    _build(read_serato(music), music, out, jobs)


def _build(
    library: Library, audio: Path, out: Path, jobs: int, analyses: Mapping[str, Analysis] | None = None
) -> None:
    from beatmeter.datasets.dj import build_dataset

    built = build_dataset(library, audio, out, analyses, jobs, TERMINAL)
    for name, reason in built.left_out:
        click.echo(f"left out: {shown(name)}: {reason}")
    for id, annotation in built.annotations.items():
        flags = dict.fromkeys(flag for part in annotation.parts.values() for flag in part.provenance.flags)
        if flags:
            click.echo(f"note: {id} ({annotation.meta.get('title', '')}): {'; '.join(flags)}")
    values: dict[str, Any] = built.statistics()
    width = max(map(len, values))
    for name, value in values.items():
        click.echo(f"{name:{width}}  {value:g}")
    click.echo(f"{out / 'manifest.csv'}: {len(built.annotations)} tracks of {library.source}, tier 2")
    raise SystemExit(1 if built.left_out else 0)
