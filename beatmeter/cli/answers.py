"""Answers as they are printed: in words for people on a terminal, in columns, CSV or JSON for programs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beatmeter.errors import BeatmeterError, shown
from beatmeter.runtime.artifacts import to_json_line
from beatmeter.runtime.display import cut, fill, width_of

if TYPE_CHECKING:
    from beatmeter.serving.answer import Answer

LIKELY = 0.5  # from which probability an answer that is not sure is likely
NARROW = 60  # columns below which an answer takes two lines
NOTHING = "no meter heard"


def sureness(answer: Answer) -> str:
    """How sure an answer is, in a word: sure, likely, a guess; empty when no meter is heard."""
    if answer.meter is None:
        return ""
    return "sure" if answer.sure else "likely" if max(answer.scores) >= LIKELY else "a guess"


def words(answer: Answer) -> str:
    """The answer in words: "3 in a bar", "7 in a bar, as 2+2+3", "4, with 3 against it"."""
    if answer.meter is None:
        return NOTHING
    if answer.second:
        return f"{answer.meter}, with {answer.second} against it"
    if not answer.meter.isdigit():
        return answer.meter
    grouped = f", as {answer.grouping}" if answer.grouping and "+" in answer.grouping else ""
    return f"{answer.meter} in a bar{grouped}"


class Lines:
    """Answers for people, in lines of at most `width` columns: what was asked for, the answer in words, how
    sure it is."""

    def __init__(
        self,
        names: Sequence[str],
        classes: Sequence[str],
        width: int,
        scores: bool,
        tempo: bool = False,
    ) -> None:
        from beatmeter.datasets.groupings import GROUPINGS

        digits = max(map(width_of, classes))
        named = [(meter, name) for meter in classes for name in GROUPINGS.get(meter, ()) if "+" in name]
        grouped = [width_of(meter) + len(" in a bar, as ") + len(name) for meter, name in named]
        self.scores, self.narrow = scores, width < NARROW
        self.width = width
        wide = max(len(NOTHING), len(", with  against it") + 2 * digits, *grouped, 0)
        self.words = min(wide, width - len("    a guess (0.00)")) if self.narrow else wide
        room = (
            width
            if self.narrow
            else width - self.words - len("a guess (0.00)") - 4 - tempo * len("  000.0 bpm")
        )
        self.name = min(max(map(width_of, names)), room)

    def answer(self, name: str, answer: Answer) -> str:
        """One answer; with scores, a second line of them."""
        how = f"{sureness(answer)} ({max(answer.scores):.2f})" if answer.meter is not None else ""
        tempo = "" if answer.tempo is None else f"  {answer.tempo:.1f} bpm"
        answered = f"{fill(words(answer), self.words)}  {how}{tempo}".rstrip()
        text = (
            f"{cut(name, self.name)}\n  {answered}"
            if self.narrow
            else f"{fill(cut(name, self.name), self.name)}  {answered}"
        )
        if not self.scores:
            return text
        line, lines = " ", []
        for cell in (f" {c} {s:.2f} " for c, s in zip(answer.classes, answer.scores, strict=True)):
            if width_of(line + cell) > self.width:
                lines.append(line)
                line = " "
            line += cell
        return "\n".join([text, *(one.rstrip() for one in (*lines, line))])


def columns(name: str, answer: Answer, scores: bool, tempo: bool = False) -> str:
    """One answer for other programs, separated by tabs: file, meter, second meter, sure or likely or a guess,
    probability, grouping; with `scores` one more column for every class, class=probability, with `tempo` a
    last one, bpm=number. A hyphen where there is nothing."""
    p = 1 - answer.heard if answer.meter is None and answer.heard is not None else max(answer.scores)
    said = [answer.meter or "none", answer.second or "-", sureness(answer) or "-"]
    cells = [name, *said, f"{p:.3f}", answer.grouping or "-"]
    cells += [f"{c}={s:.3f}" for c, s in zip(answer.classes, answer.scores, strict=True) if scores]
    beats = "-" if answer.tempo is None else f"{answer.tempo:.1f}"
    return "\t".join([*cells, *([f"bpm={beats}"] if tempo else [])])


def csv_header(classes: Sequence[str], tempo: bool = False) -> str:
    """The first line of the CSV."""
    last = ["bpm", "error"] if tempo else ["error"]
    return _row(
        [
            *("file", "meter", "second", "sure", "heard", "seconds"),
            *(f"score_{c}" for c in classes),
            *("grouping", *last),
        ]
    )


def csv_row(name: str, answer: Answer | BeatmeterError, classes: Sequence[str], tempo: bool = False) -> str:
    """One answer, or the reason why there is none in the last column."""
    if isinstance(answer, BeatmeterError):
        return _row([name, *[""] * (6 + len(classes) + tempo), str(answer)])
    sure = "true" if answer.sure else "false"
    numbers = [
        "" if answer.heard is None else f"{answer.heard:.4f}",
        f"{answer.seconds:.3f}",
        *(f"{s:.6f}" for s in answer.scores),
    ]
    beats = [] if not tempo else [""] if answer.tempo is None else [f"{answer.tempo:.2f}"]
    return _row(
        [name, answer.meter or "", answer.second or "", sure, *numbers, answer.grouping or "", *beats, ""]
    )


def json_line(path: Path | str, answer: Answer | BeatmeterError) -> str:
    """One answer, or the reason why there is none, as a JSON object on one line."""
    value = {"error": str(answer)} if isinstance(answer, BeatmeterError) else answer.to_json()
    return to_json_line({"file": os.fsdecode(path), **value})


def reason(path: Path, error: BeatmeterError) -> str:
    """Why there is no answer, on one line that names the file."""
    text, name = str(error), name_of(path)
    return text if name in text else f"{name}: {text}"


def legend(classes: Sequence[str], sure: str) -> str:
    """What the words mean, and how to get more."""
    meters = " ".join(classes)
    return f'bars of {meters}; "sure": {sure}.   --scores, --csv, --json for more'


def name_of(path: Path | str) -> str:
    """A path on one line, without tabs."""
    return shown(os.fsdecode(path))


def _row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
