"""beatmeter data annotations"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.beat_review import audit, correct
from beatmeter.cli.options import device_option, echo
from beatmeter.errors import BeatmeterError, DataError, shown
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.datasets.annotations import Annotation


@click.group("annotations", short_help="beats, sections and events: check, convert, audit, pseudo-labels")
def annotation_files() -> None:
    """Check and convert annotations of beats, sections and events.

    \b
    beatmeter data annotations check MUSIC/
    beatmeter data annotations convert MUSIC/beats --to jams --out jams/ --audio MUSIC/audio
    beatmeter data annotations audit MUSIC/ --out review/
    """


for command in (audit, correct):
    annotation_files.add_command(command)


@annotation_files.command(short_help="what is wrong or doubtful in annotation files")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--format", default="", help="Read every file in this format.  [default: by suffix and content]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def check(paths: tuple[Path, ...], format: str, as_json: bool) -> None:
    """Read the annotation files at PATHS (files and folders), say what is wrong or doubtful, and count.

    \b
    beatmeter data annotations check MUSIC/
    beatmeter data annotations check song.beats song.lab --json

    Exit status: 0 nothing is in doubt, 1 something is, 2 nothing can be read.
    """
    from beatmeter.datasets.annotations.examination import doubts, statistics

    read: list[Annotation] = []
    refused: list[str] = []
    doubtful: dict[str, list[str]] = {}
    for path in _files(paths):
        try:
            annotation = _read(path, format)
        except DataError as error:
            refused.append(str(error))
            continue
        read.append(annotation)
        if found := doubts(annotation):
            doubtful[shown(path)] = found
    if not read and not refused:
        raise DataError(
            f"no annotation lies at {', '.join(map(shown, paths))}", "Name files or folders that hold some."
        )
    values = statistics(read)
    status = 2 if not read else int(bool(refused or doubtful))
    if as_json:
        click.echo(
            to_json(
                {**values, "refused": refused, "doubtful": doubtful, "status": status}, ensure_ascii=False
            )
        )
    else:
        _show(values, refused, doubtful)
    raise SystemExit(status)


@annotation_files.command(short_help="annotation files in another format")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--to",
    "wanted",
    required=True,
    help="Format to write: json, yaml, beats, lab, jams, harmonix, salami, audacity.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the new files.")
@click.option(
    "--format", default="", help="Read every file in this format.  [default: by suffix and content]"
)
@click.option(
    "--audio", type=click.Path(path_type=Path), help="Folder of the audio, whose durations JAMS needs."
)
def convert(paths: tuple[Path, ...], wanted: str, out: Path, format: str, audio: Path | None) -> None:
    """Write the annotation files at PATHS (files and folders) in another format to the folder --out.

    Files of one name, song.beats and song.lab, become one file where the format holds both.

    \b
    beatmeter data annotations convert MUSIC/beats MUSIC/lab --to json --out MUSIC/annotations
    beatmeter data annotations convert song.beats song.lab --to jams --out . --audio MUSIC/

    Exit status: 0 every file was converted, 1 some were not (they are listed), 2 none was.
    """
    from dataclasses import replace

    from beatmeter.audio.decode import probe
    from beatmeter.datasets.annotations import find_format, write_annotation
    from beatmeter.datasets.files import find_audio

    target = find_format(wanted)
    found: dict[str, Annotation] = {}
    problems: list[str] = []
    for path in _files(paths):
        try:
            annotation = _read(path, format)
        except DataError as error:
            problems.append(str(error))
            continue
        if any(part in target.holds for part in annotation.parts):
            name = path.stem
            found[name] = found[name].beneath(annotation) if name in found else annotation
    lengths = {path.stem: path for path in find_audio(audio)} if audio is not None else {}
    written = 0
    for name, annotation in found.items():
        try:
            if annotation.duration is None and name in lengths:
                annotation = replace(annotation, duration=probe(lengths[name]).seconds)
            path = out / f"{name}{target.suffixes[0]}"
            write_annotation(path, annotation, target.name)
            written += 1
        except DataError as error:
            problems.append(str(error))
    for problem in problems:
        echo(f"left out: {problem}")
    if not written:
        raise DataError(
            f"nothing at {', '.join(map(shown, paths))} can be written as {wanted}",
            "See what is listed above.",
        )
    click.echo(f"{out}: {count(written, 'file')} of the format {wanted}")
    raise SystemExit(1 if problems else 0)


@annotation_files.command(short_help="a Rekordbox XML: grids, sections as memory cues")
@click.argument("dataset", type=click.Path())
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The XML file to write.")
@click.option("--sections", default="lab", show_default=True, help="Folder of sections beside the audio.")
def rekordbox(dataset: str, out: Path, sections: str) -> None:
    """Write what is known of the tracks of DATASET as a Rekordbox XML: grids, and sections and events as
    memory cues.

    \b
    beatmeter data annotations rekordbox MUSIC/ --out import.xml

    Exit status: 0 the file is written, 2 no track has annotations.
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.annotations import Folders, find_annotations
    from beatmeter.datasets.dj import render_rekordbox
    from beatmeter.runtime.atomic import write_text
    from beatmeter.settings import METERS, DataConfig

    opened = open_dataset(dataset, DataConfig(), METERS, labelled=False)
    found = find_annotations(opened.tracks, Folders(sections=sections))
    if not found:
        hint = "docs/annotations.md says where they are looked for."
        raise DataError(f"no track of {shown(dataset)} has annotations", hint)
    write_text(out, render_rekordbox([(t.path, found[t.id]) for t in opened.tracks if t.id in found]))
    click.echo(f"{out}: {count(len(found), 'track')} with grids and memory cues, to import in rekordbox")


@annotation_files.command(short_help="beats that a model is sure of, for another one to learn from")
@click.argument("music", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE|FOLDER...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to make: links, annotations, manifest.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A run of the task beats.  [default: the one that ships]",
)
@click.option(
    "--sure",
    type=click.FloatRange(0, 1),
    help="Confidence that every bar of a stretch needs.  [default: 0.8]",
)
@device_option
def pseudo(music: tuple[Path, ...], out: Path, model: Path | None, sure: float | None, device: str) -> None:
    """Make a data set of pseudo-labels: the beats that a model hears in music without labels, known in
    stretches of four bars and more of whose beats it is sure. What lies between is unknown, and teaches
    nothing.

    \b
    beatmeter data annotations pseudo MUSIC/ --out PSEUDO
    beatmeter train --frozen LABELLED --recipe embedded-beats --set data.extra=PSEUDO --out runs/student

    Safe to stop and run again: what was heard is kept.

    Exit status: 0 every file has some, 1 some are left out, 2 none has any.
    """
    from beatmeter.cli.answers import reason
    from beatmeter.cli.systems import files_of, listening
    from beatmeter.datasets.annotations.linked import claim, write_linked
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.pseudo_labels import SURE, Teacher

    teacher = Teacher(model, SURE if sure is None else sure, choose_device(device))
    claim(out, teacher.source)
    paths = by_name(files_of(music))
    heard = teacher.kept(paths, out)
    require_writable(out / "manifest.csv")
    missing = {id: path for id, path in paths.items() if id not in heard}
    with listening(list(missing.values())) as (more, done):
        for id, found in teacher.hear(missing, out, more):
            if isinstance(found, BeatmeterError):
                echo(f"left out: {reason(paths[id], found)}")
            else:
                heard[id] = found
            done()
    if not heard:
        raise DataError(f"none of {count(len(paths), 'file')} could be heard", "See what is listed above.")
    grids = {id: grid for id in paths if id in heard and (grid := heard[id].grid) is not None}
    for id in (id for id in paths if id in heard and id not in grids):
        echo(f"left out: {shown(paths[id])}: no four bars in a row of which the model is sure")
    if not grids:
        raise DataError(
            f"the model is sure of no beats in {count(len(heard), 'file')}",
            "Ask for less: --sure; or train a model on music like this.",
        )
    write_linked(out, teacher.source, {id: heard[id] for id in grids}, paths)
    known = sum(float((grid.known[:, 1] - grid.known[:, 0]).sum()) for grid in grids.values())
    seconds = sum(heard[id].duration or 0.0 for id in grids)
    click.echo(
        f"{out / 'manifest.csv'}: {count(len(grids), 'track')}, {known / 60:.1f} of {seconds / 60:.1f} min "
        f"known, tier 3 by {teacher.source}"
    )
    raise SystemExit(1 if len(grids) < len(paths) else 0)


def by_name(files: list[Path]) -> dict[str, Path]:
    """Files by names that differ: song, song-2 ..."""
    found: dict[str, Path] = {}
    for file in files:
        names = (f"{file.stem}-{n}" if n > 1 else file.stem for n in range(1, len(files) + 1))
        found[next(name for name in names if name not in found)] = file
    return found


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The files named, and those under folders that look like annotations."""
    from beatmeter.datasets.annotations import native
    from beatmeter.datasets.annotations.registry import FORMATS, SUFFIXES

    texts = [format.fits for format in FORMATS.values() if format.fits is not None]
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no file or folder {shown(path)}", "Check the path.")
        if not path.is_dir():
            yield path
            continue
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
            if file.suffix.lower() in (".json", ".yaml", ".yml", ".txt"):  # other programs use them too
                text = file.read_text(encoding="utf-8", errors="replace")
                if not (
                    native.fits(text) or (file.suffix.lower() == ".txt" and any(fits(text) for fits in texts))
                ):
                    continue
            yield file


def _read(path: Path, format: str) -> Annotation:
    from beatmeter.datasets.annotations import read_annotation

    return read_annotation(path, format)


def _show(values: dict[str, Any], refused: list[str], doubtful: dict[str, list[str]]) -> None:
    for text in refused:
        click.echo(f"refused: {text}")
    for name, found in doubtful.items():
        for text in found:
            click.echo(f"doubtful: {name}: {text}")
    known = {
        name: f"{n} ({values['seconds known'][name] / 60:.1f} min known)"
        for name, n in values["parts"].items()
    }
    click.echo(
        f"{count(values['tracks'], 'annotation')}: "
        + ", ".join(f"{name} {told}" for name, told in known.items())
    )
    for name in ("tiers", "beats in a bar", "sections by bars", "events", "flags"):
        if values[name]:
            told = [f"{key} ({n})" for key, n in list(values[name].items())[:8]]
            click.echo(f"{name}: {', '.join(told)}")
    if values["tempo"]:
        low, middle, high = values["tempo"]
        click.echo(f"tempo: {low:g} to {high:g} bpm, median {middle:g}")
    if values["boundaries on a downbeat"] is not None:
        click.echo(f"boundaries on a downbeat: {values['boundaries on a downbeat']:.0%}")
    if refused or doubtful:
        click.echo(f"{len(refused)} refused, {len(doubtful)} doubtful")
