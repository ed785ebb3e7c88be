"""What a reviewer gets: a CSV file to fill in, and a page with players that fills it in.

The page is one file that works offline; it plays the audio files where they lie, by relative
links. It says nothing of what the model guessed unless it is asked to: who knows the guess hears it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

from beatmeter.datasets.corrections import DECISION, written
from beatmeter.datasets.decisions import DROP, KEEP
from beatmeter.errors import shown
from beatmeter.runtime.display import count
from beatmeter.runtime.templates import render
from beatmeter.schema import Track

COLUMNS = ("id", "label", DECISION, "comment")
GUESS_COLUMNS = ("guess", "quality")


@dataclass(frozen=True)
class Guess:
    """What the head says of a track: its answer, the probability of every class, and the quality of the label
    in [0, 1]."""

    answer: str
    scores: Mapping[str, float]
    quality: float


@dataclass(frozen=True)
class Item:
    """A track to decide on. `twin` is a track that sounds like it, `reason` how much; `guess` is what a model
    heard, where one did."""

    track: Track
    guess: Guess | None = None
    twin: Track | None = None
    reason: str = ""


@dataclass(frozen=True)
class Review:
    """All that a reviewer is asked: suspicious labels, then clips that sound alike. Every track stands in it
    once."""

    title: str
    classes: tuple[str, ...]
    labels: Sequence[Item]
    copies: Sequence[Item] = field(default=())

    @property
    def items(self) -> list[Item]:
        """All items, in order."""
        return [*self.labels, *self.copies]

    def to_csv(self) -> str:
        """The file to fill in: `new label` takes a label, keep or drop."""
        guesses = any(item.guess for item in self.labels)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *(GUESS_COLUMNS if guesses else ())])
        for item in self.items:
            told = [item.guess.answer, f"{item.guess.quality:.4f}"] if item.guess else ["", ""]
            writer.writerow([item.track.id, written(item.track), "", item.reason, *(told if guesses else ())])
        return text.getvalue()

    def to_html(self, folder: Path) -> str:
        """The page, to lie in `folder`: links to audio are relative to it."""
        key = hashlib.sha256(self.to_csv().encode("utf-8", "surrogateescape")).hexdigest()[:16]
        about = f"{count(len(self.labels), 'label')} to check" + (
            f", {count(len(self.copies), 'clip')} that sound like another" if self.copies else ""
        )
        return render(
            "beatmeter.experiments.audit",
            "review.html",
            title=self.title,
            about=about,
            key=key,
            columns=",".join(COLUMNS),
            labels=self.labels,
            copies=self.copies,
            choices=self._choices,
            link=partial(link, folder=folder),
            written=written,
            place=_place,
            shown=shown,
        )

    def _choices(self, label: str) -> list[tuple[str, str]]:
        """Values and texts of what may be decided on a track with this label."""
        others = [(c, c) for c in self.classes if c != label]
        return [
            ("", "undecided"),
            (KEEP[0], f"keep {label}" if label else "keep"),
            *others,
            (DROP[0], "leave it out"),
        ]


def link(path: Path, folder: Path) -> str:
    """The address of a file as seen from a page in `folder`: relative, every byte of any name escaped as it
    must be."""
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _place(track: Track) -> str:
    return ", ".join(part for part in (track.source, track.split or "") if part)
