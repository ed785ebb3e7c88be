"""beatmeter predict"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli import answers, column_answers
from beatmeter.cli.options import aside, columns, device_option, echo
from beatmeter.cli.systems import STDIN, check_priors, files_of, listening, model_and_files, standard_input
from beatmeter.errors import BeatmeterError, ConfigError, shown
from beatmeter.runtime.loading import loading

if TYPE_CHECKING:
    from beatmeter.serving.answer import Answer
    from beatmeter.serving.tempo import BeatsMeter


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="[MODEL] FILE...")
@click.option(
    "--priors",
    metavar="3=0.4,4=0.5",
    help="How common the meters are in your music: the chance that a piece has each.",
)
@click.option(
    "--abstain",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Leave this share of answers open: the least sure ones.",
)
@click.option("--scores", is_flag=True, help="The probability of every meter too.")
@click.option("--tempo", is_flag=True, help="Beats a minute too: the beats model that ships listens as well.")
@click.option(
    "--csv",
    "form",
    flag_value="csv",
    help="A table with a header: file, meter, second, sure, heard, seconds, score_<meter>, grouping, error.",
)
@click.option("--json", "form", flag_value="json", help="One JSON object per line, scores of every meter.")
@click.option(
    "--jams",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write DIR/NAME.jams for every file: the meter, the second one, and every score.",
)
@click.option("--jobs", type=int, default=0, help="Processes that decode audio; worth it for many files.")
@device_option
def predict(
    paths: tuple[Path, ...],
    priors: str | None,
    abstain: float,
    scores: bool,
    tempo: bool,
    form: str | None,
    jams: Path | None,
    jobs: int,
    device: str,
) -> None:
    """Say in which meter FILEs are, or what else MODEL was trained for. Folders are searched for audio, - is
    standard input.

    MODEL is a run folder, the folder of an ensemble, or the name of a model that ships (see `beatmeter
    models`); without it the best of those that ship answers. In a pipe every answer is one line, separated by
    tabs: file, meter (none: no meter heard), second meter, sure or likely or a guess, probability,
    grouping.

    \b
    beatmeter predict song.mp3
    beatmeter predict MUSIC/ --json > meters.jsonl
    beatmeter predict MUSIC/ --jams annotations/
    beatmeter predict song.mp3 --tempo
    beatmeter predict MUSIC/ | grep -P '\\t7\\t'
    beatmeter predict runs/NAME song.mp3 MUSIC/
    beatmeter predict MUSIC/ --priors 3=0.2,4=0.7 --abstain 0.2

    Exit status: 0 every file got an answer, 1 some could not be used (stderr says why), 2 nothing could be
    done.
    """
    wanted = parse_priors(priors)
    model, given = model_and_files(paths)
    if wanted or abstain:
        check_priors(model, wanted)
    names = files_of(given)
    written = None if jams is None else _jams_places(names, jams)

    with loading():
        from beatmeter.runtime.device import choose_device
        from beatmeter.serving.answer import Answer
        from beatmeter.serving.judge import may_be_grouped
        from beatmeter.serving.predictor import Predictor

    with standard_input(names) as files:
        predictor = Predictor.load(model, choose_device(device), wanted, abstain)
        if written is not None:
            predictor.require_meter("a JAMS file of predict")
        column = predictor.column
        if column is None and predictor.note and form is None and sys.stdout.isatty():
            echo(f"note: {predictor.note}")
        called = [answers.name_of(name) for name in names]
        if column is None:
            show = _printer(form, called, predictor.classes, scores, tempo)
        elif tempo:
            raise ConfigError(
                f"--tempo stands beside a meter, and {model} answers something else", "Leave --tempo out."
            )
        else:
            show = column_answers.printer(form, called, predictor.classes, sys.stdout.isatty(), columns())
        beats: BeatsMeter | None = None  # much is loaded for it
        failed = 0
        with listening(files) as (heard, done):
            for name, (path, answer) in zip(names, predictor.predict_files(files, jobs, heard), strict=True):
                if isinstance(answer, Answer) and (tempo or may_be_grouped(answer)):
                    beats = beats or _beats_meter(device)
                    answer = beats.complete(path, answer, tempo)
                failed += isinstance(answer, BeatmeterError)
                with aside():
                    show(name, answer)
                if written is not None and not isinstance(answer, BeatmeterError):
                    from beatmeter.runtime.atomic import write_text
                    from beatmeter.serving.answer_jams import answer_jams

                    write_text(written[name], answer_jams(written[name].stem, answer, model.name))
                done()
    if form is None and sys.stdout.isatty():
        of_meter = answers.legend(predictor.classes, predictor.statement)
        legend = of_meter if column is None else column_answers.legend(column.kind, predictor.classes)
        echo("\n".join(textwrap.wrap(legend, columns(), break_on_hyphens=False)))
    raise SystemExit(1 if failed else 0)


def _beats_meter(device: str) -> BeatsMeter:
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.tempo import BeatsMeter

    return BeatsMeter(choose_device(device))


def _jams_places(names: list[Path], out: Path) -> dict[Path, Path]:
    """Where the JAMS file of each audio file goes. Raises ConfigError when two files would have the same one,
    WriteError when none can be written there."""
    from beatmeter.runtime.atomic import require_writable

    places: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for name in names:
        place = out / f"{'standard-input' if name == STDIN else name.stem}.jams"
        if owner.setdefault(place, name) != name:
            raise ConfigError(
                f"{shown(owner[place])} and {shown(name)} would both be written to {shown(place)}",
                "Hear their folders one by one, each with a --jams folder of its own.",
            )
        places[name] = place
    require_writable(*list(owner)[:1])
    return places


def _printer(
    form: str | None,
    names: list[str],
    classes: tuple[str, ...],
    scores: bool,
    tempo: bool,
) -> Callable[[Path, Answer | BeatmeterError], None]:
    """What prints one answer in the form that was asked for, and on stderr why there is none."""
    people = sys.stdout.isatty()
    lines = answers.Lines(names, classes, columns(), scores, tempo) if people else None

    def show(path: Path, answer: Answer | BeatmeterError) -> None:
        if isinstance(answer, BeatmeterError):
            echo(answers.reason(path, answer))
        if form == "json":
            click.echo(answers.json_line(path, answer))
        elif form == "csv":
            click.echo(answers.csv_row(answers.name_of(path), answer, classes, tempo))
        elif not isinstance(answer, BeatmeterError):
            name = answers.name_of(path)
            click.echo(lines.answer(name, answer) if lines else answers.columns(name, answer, scores, tempo))

    if form == "csv":
        click.echo(answers.csv_header(classes, tempo))
    return show


def parse_priors(text: str | None) -> dict[str, float] | None:
    """`3=0.4,4=0.5` as numbers by class."""
    if text is None:
        return None
    try:
        return {
            name.strip(): float(value) for name, _, value in (part.partition("=") for part in text.split(","))
        }
    except ValueError:
        raise ConfigError(f"--priors {text!r} cannot be read", "Write --priors 3=0.4,4=0.5.") from None
