"""Answers of models over a column as they are printed: in words for people, in columns, CSV or JSON for
programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from beatmeter.cli import answers
from beatmeter.cli.options import echo
from beatmeter.errors import BeatmeterError
from beatmeter.runtime.display import cut, fill, width_of

if TYPE_CHECKING:
    from beatmeter.serving.answer import Answer
    from beatmeter.serving.column_answer import ColumnAnswer


def printer(
    form: str | None, names: Sequence[str], outputs: Sequence[str], people: bool, width: int
) -> Callable[[Path, Answer | BeatmeterError], None]:
    """What prints one answer in the form that was asked for, and on stderr why there is none."""
    room = max(10, min(max(map(width_of, names), default=10), width // 2))

    def show(path: Path, found: Answer | BeatmeterError) -> None:
        name = answers.name_of(path)
        if isinstance(found, BeatmeterError):
            echo(answers.reason(path, found))
            if form == "json":
                click.echo(answers.json_line(path, found))
            elif form == "csv":
                click.echo(_row([name, *[""] * (2 + len(outputs)), str(found)]))
            return
        answer = cast("ColumnAnswer", found)
        numbers = [f"{s:.6g}" for s in answer.scores]
        if form == "json":
            click.echo(answers.json_line(path, answer))
        elif form == "csv":
            click.echo(_row([name, ";".join(answer.predicted), f"{answer.seconds:.3f}", *numbers, ""]))
        elif people:
            click.echo(f"{fill(cut(name, room), room)}  {answer.words}")
        else:
            click.echo(
                "\t".join(
                    [
                        name,
                        ";".join(answer.predicted) or "-",
                        *(f"{c}={n}" for c, n in zip(outputs, numbers, strict=True)),
                    ]
                )
            )

    if form == "csv":
        click.echo(_row(["file", "answer", "seconds", *outputs, "error"]))
    return show


def legend(kind: str, outputs: Sequence[str]) -> str:
    """What the words mean, and how to get more."""
    if kind == "embedding":
        return "--json for the vectors; `beatmeter embed RUN` writes them to a file that `search` reads"
    kinds = {"multiclass": "one of", "multilabel": "labels above 0.5 of", "value": "values of"}[kind]
    return f"{kinds} {', '.join(outputs)}.   --csv, --json for all numbers"


def _row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
