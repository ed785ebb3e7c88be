"""beatmeter structure"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.answers import reason
from beatmeter.cli.options import device_option, echo
from beatmeter.cli.systems import files_of, listening
from beatmeter.errors import BeatmeterError, ConfigError, shown
from beatmeter.runtime.artifacts import to_json_line
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.datasets.annotations import Annotation
    from beatmeter.serving.structure import Structure

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="FILE|FOLDER...")
@click.option(
    "--model", type=PATH, metavar="RUN", help="A run of the task beats.  [default: the one that ships]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for every file.")
@click.option("--beats", is_flag=True, help="Write NAME.beats: time and place in the bar.")
@click.option("--lab", is_flag=True, help="Write NAME.lab: start, end and letter of sections.")
@click.option("--jams", is_flag=True, help="Write NAME.jams: all of it.")
@click.option("--out", type=PATH, help="Folder of these files.  [default: the current one]")
@click.option("--rekordbox", type=PATH, metavar="FILE", help="All tracks as one XML to import in rekordbox.")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw one track: a .png or .svg file.")
@click.option("--clicks", type=PATH, metavar="FILE", help="One track with clicks on its beats: a .wav file.")
@device_option
def structure(
    paths: tuple[Path, ...],
    model: Path | None,
    as_json: bool,
    beats: bool,
    lab: bool,
    jams: bool,
    out: Path | None,
    rekordbox: Path | None,
    plot: Path | None,
    clicks: Path | None,
    device: str,
) -> None:
    """Say how a track is built: tempo, meter, beats and bars, sections that repeat, and their energy.

    \b
    beatmeter structure song.mp3
    beatmeter structure song.mp3 --plot song.svg --clicks song-clicks.wav
    beatmeter structure MUSIC/ --json > structure.jsonl
    beatmeter structure MUSIC/ --beats --lab --out annotations/
    beatmeter structure MUSIC/ --rekordbox import.xml

    Exit status: 0, or 1 when some files could not be heard.
    """
    files = files_of(paths)
    if (plot or clicks) and len(files) > 1:
        raise ConfigError(
            f"{len(files)} files were named, and --plot and --clicks are of one",
            "Name one file, or leave them out.",
        )
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"a plot is a .png or .svg file, not {shown(plot.name)}")
    if clicks is not None and clicks.suffix.lower() != ".wav":
        raise ConfigError(f"clicks are written to a .wav file, not {shown(clicks.name)}")
    formats = [name for name, wanted in (("beats", beats), ("lab", lab), ("jams", jams)) if wanted]
    from beatmeter.runtime.atomic import require_writable, write_text

    require_writable(*(path for path in (rekordbox, plot, clicks) if path is not None))
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.structure import StructureDetector

    detector = StructureDetector.load(model, choose_device(device))
    failed = 0
    heard: list[tuple[Path, Annotation]] = []
    with listening(files) as (more, done):
        for number, (path, found) in enumerate(detector.hear_files(files, progress=more)):
            done()
            if isinstance(found, BeatmeterError):
                failed += 1
                echo(f"error: {reason(path, found)}")
                continue
            if as_json:
                click.echo(to_json_line(found.to_json()))
            else:
                click.echo(("\n" if number else "") + _text(found), nl=False)
            _write(found, formats, out or Path())
            _draw(found, plot, clicks)
            heard.append((path, found.annotation()))
    if rekordbox is not None and heard:
        from beatmeter.datasets.dj import render_rekordbox

        write_text(rekordbox, render_rekordbox(heard))
        echo(f"rekordbox: {rekordbox}: {count(len(heard), 'track')} with grids and memory cues")
    raise SystemExit(1 if failed else 0)


def _write(found: Structure, formats: list[str], out: Path) -> None:
    from beatmeter.datasets.annotations import write_annotation

    for name in formats:
        if name == "beats" and not len(found.beats.times):
            echo(f"{shown(found.path)}: no beats to write")
            continue
        path = out / f"{found.path.stem}.{name}"
        write_annotation(path, found.annotation(), name)
        echo(f"{name}: {path}")


def _draw(found: Structure, plot: Path | None, clicks: Path | None) -> None:
    if plot is not None:
        from beatmeter.evaluation.figures import to_png, to_svg
        from beatmeter.runtime.atomic import write_bytes
        from beatmeter.serving.structure_figure import structure_figure

        drawn = structure_figure(found)
        write_bytes(plot, to_png(drawn) if plot.suffix == ".png" else to_svg(drawn, "structure").encode())
        echo(f"plot: {plot}")
    if clicks is not None:
        from beatmeter.serving.clicks import write_clicks

        write_clicks(found, clicks)
        echo(f"clicks: {clicks}")


def _text(s: Structure) -> str:
    """What was found in words and a table."""
    from beatmeter.evaluation.report.text import table

    lines = [shown(s.path), f"  {_summary(s)}"]
    rows = []
    for i, (start, end, name) in enumerate(
        zip(s.sections.starts, s.sections.ends, s.sections.names, strict=True)
    ):
        energy = [_cell(x, "{:.0f}") for x in s.energy[i]]
        sure = _cell(float(s.sections.scores[i]), "{:.2f}")
        rows.append([name, _clock(start), _clock(end), str(s.bars[i]), *energy, sure])
    lines += [
        "",
        *(
            "  " + line
            for line in table(["section", "from", "to", "bars", "bass", "mid", "high", "all", "sure"], rows)
        ),
    ]
    if len(s.events):
        pairs = zip(s.events.kinds, s.events.starts, strict=True)
        lines += ["", "  events: " + ", ".join(f"{kind} {_clock(t)}" for kind, t in pairs)]
    return "\n".join(lines) + "\n"


def _summary(s: Structure) -> str:
    if s.tempo is None:
        return "no beats heard"
    steady = s.steadiness
    words = "" if steady is None else next(w for least, w in STEADY if steady >= least)
    grouped = f", as {s.meter.grouping}" if s.meter.grouping else ""
    meter = f"meter {s.meter.meter}{grouped}" if s.meter.meter else "no meter heard"
    return f"{s.tempo:.1f} bpm{words}, {meter}, {len(s.downbeats)} bars, {len(s.beats.times)} beats"


STEADY = ((0.98, " (steady)"), (0.9, " (moves a little)"), (-1.0, " (changes)"))


def _cell(value: float, form: str) -> str:
    return "-" if value != value else form.format(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(float(seconds), 60)
    return f"{int(minutes)}:{rest:04.1f}"
