"""What a reviewer gets: a CSV file to fill in, and a page with players that fills it in.

The page is one file without anything from the network; it plays the audio files where they lie, by relative links. It says
nothing of what the model guessed unless it is asked to: who knows the guess hears it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from beatmeter.datasets.corrections import DECISION, DROP, KEEP, written
from beatmeter.errors import shown
from beatmeter.runtime.display import count
from beatmeter.schema import Track

COLUMNS = ("id", "label", DECISION, "comment")
GUESS_COLUMNS = ("guess", "quality")


@dataclass(frozen=True)
class Guess:
    """What the head says of a track: its answer, the probability of every class, and the quality of the label in [0, 1]."""

    answer: str
    scores: Mapping[str, float]
    quality: float


@dataclass(frozen=True)
class Item:
    """A track to decide on. `twin` and `said` are of a track that sounds like it; `guess` is shown when it is there."""

    track: Track
    guess: Guess | None = None
    twin: Track | None = None
    said: str = ""


@dataclass(frozen=True)
class Review:
    """All that a reviewer is asked: suspicious labels, then clips that sound alike. Every track stands in it once."""

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
            writer.writerow([item.track.id, written(item.track), "", item.said, *(told if guesses else ())])
        return text.getvalue()

    def to_html(self, folder: Path) -> str:
        """The page, to lie in `folder`: links to audio are relative to it."""
        style, script = (
            resources.files("beatmeter.experiments.audit").joinpath(name).read_text(encoding="utf-8") for name in ("review.css", "review.js")
        )
        key = hashlib.sha256(self.to_csv().encode("utf-8", "surrogateescape")).hexdigest()[:16]
        about = f"{count(len(self.labels), 'label')} to check" + (
            f", {count(len(self.copies), 'clip')} that sound like another" if self.copies else ""
        )
        parts = [
            f"<h1>{escape(self.title)}</h1>",
            f'<p class="lead">{about}. Listen, decide, save the CSV file, and give it to <code>--corrections</code>. '
            "Decisions are kept in this browser until then.</p>",
            f'<form id="review" data-key="{key}" data-columns="{escape(",".join(COLUMNS))}">',
            _section("Labels to check", [_card(item, self.classes, folder) for item in self.labels]),
            _section("Clips that sound alike", [_card(item, self.classes, folder) for item in self.copies]),
            "</form>",
            '<div class="bar"><span id="count"></span> <button type="button" id="save">Save CSV</button></div>',
        ]
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(self.title)}</title>'
        body = "\n".join(part for part in parts if part)
        return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n<body>{body}\n<script>{script}</script></body></html>\n'


def link(path: Path, folder: Path) -> str:
    """The address of a file as seen from a page in `folder`: relative, every byte of any name escaped as it must be."""
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _section(title: str, cards: Sequence[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(cards)}</section>" if cards else ""


def _card(item: Item, classes: Sequence[str], folder: Path) -> str:
    track = item.track
    label = written(track)
    choices = [
        ("", "undecided"),
        (KEEP[0], f"keep {label}" if label else "keep"),
        *((c, c) for c in classes if c != label),
        (DROP[0], "leave it out"),
    ]
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in choices)
    name = escape(track.id)
    twin = f'<div class="twin">{escape(item.said)}{_player(item.twin, folder)}</div>' if item.twin else ""
    return (
        f'<article data-id="{name}" data-label="{escape(label)}">'
        f'<header><b>{name}</b> <span class="muted">{escape(_place(track))}</span><span class="label">{escape(label or "no label")}</span></header>'
        f"{_player(track, folder)}{twin}{_guess(item.guess)}"
        f'<div class="decide"><select aria-label="decision on {name}">{options}</select>'
        f'<input class="other" placeholder="or a label: 3,4" aria-label="another label of {name}">'
        f'<input class="comment" placeholder="comment" aria-label="comment on {name}" value="{escape(item.said)}"></div></article>'
    )


def _place(track: Track) -> str:
    return ", ".join(part for part in (track.source, track.split or "") if part)


def _player(track: Track, folder: Path) -> str:
    return f'<audio controls preload="none" src="{escape(link(track.path, folder))}" title="{escape(shown(track.path.name))}"></audio>'


def _guess(guess: Guess | None) -> str:
    if guess is None:
        return ""
    bars = "".join(
        f'<span>{escape(c)}</span><span class="track"><span class="fill" style="width:{100 * p:.1f}%"></span></span><span>{p:.2f}</span>'
        for c, p in guess.scores.items()
    )
    return f'<div class="guess">guess {escape(guess.answer)}, quality of the label {guess.quality:.2f}<div class="bars">{bars}</div></div>'
