"""Measures how often the models that ship hear no meter, and how right their sure answers are; renews the
table in docs/models.md.

    python tools/refusals.py synthetic=data/synthetic meter-dev=METER-DEV ...

Sounds without meter are generated, 30 of each kind, by seeds that no model was fitted to. Every NAME=DATASET
is music: its test split, or all of it where it has none. What was heard is kept in runs/refusals.jsonl, so a
stopped run goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch
from ablations import renewed
from hear_members import Together

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth.meterless import FITTED, KINDS, UNSEEN, render_meterless
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.metrics import wilson
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.serving.answer import Scored
from beatmeter.serving.judge import Judge
from beatmeter.serving.models import EnsembleFolder, shipped_model, shipped_models
from beatmeter.serving.scoring import EnsembleScorer
from beatmeter.settings import DataConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
HEARD = Path("runs") / "refusals.jsonl"
SEEDS = range(1_000_000, 1_000_030)
LENGTHS = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0)


class Apart(Together):
    """Runs that hear the same audio in one go; `heard` keeps what each of them made of the last."""

    heard: Mapping[str, Scored]

    def join(self, members: Mapping[str, Scored]) -> Scored:
        """Their scores end to end, which nobody reads."""
        self.heard = members
        return super().join(members)


def sounds() -> Iterator[tuple[str, str, str | None, Any]]:
    """Set, name, label and wave of every sound."""
    for seed in SEEDS:  # in turn: where this is stopped, all kinds have been heard alike
        for kind in KINDS:
            seconds = LENGTHS[seed % len(LENGTHS)]
            yield kind, str(seed), None, partial(render_meterless, seed, kind, seconds=seconds)


def music(name: str, place: str, classes: tuple[str, ...]) -> Iterator[tuple[str, str, str | None, Any]]:
    """The same of the music of a dataset."""
    tracks = open_dataset(place, DataConfig(), classes, labelled=False).tracks
    tested = {t.split for t in tracks} > {"test"}
    for t in tracks:
        if t.split == "test" or not tested:
            yield name, t.id, t.primary if t.labels else None, lambda path=t.path: load(path)


def main() -> None:
    """Hear what was not heard yet, then write the table."""
    names = list(shipped_models()["models"])
    folders = {name: EnsembleFolder(shipped_model(name)) for name in names}
    ensembles = {
        name: EnsembleScorer(folder, torch.device("cpu"))
        for name, folder in folders.items()
        if folder.exists()
    }
    together = Apart({name: shipped_model(name) for name in names if name not in ensembles})
    calibrations = {name: Calibration.load(RunFolder(shipped_model(name)).calibration) for name in names}
    judges = {name: Judge(calibration) for name, calibration in calibrations.items()}
    sets = [
        sounds(),
        *(
            music(name, place, together.classes)
            for name, _, place in (given.partition("=") for given in sys.argv[1:])
        ),
    ]
    HEARD.parent.mkdir(parents=True, exist_ok=True)
    rows = read_json_lines(HEARD).values if HEARD.exists() else []
    known = {(row["set"], row["id"]) for row in rows}
    with HEARD.open("a", encoding="utf-8") as file:
        for which, name, label, wave in (item for items in sets for item in items if item[:2] not in known):
            audio = wave()
            together.hear(audio)
            scored = dict(together.heard)
            scored |= {
                name: joined.join({member: scored[member] for member in joined.members})
                for name, joined in ensembles.items()
            }
            answers = {
                model: judge(together.classes, scored[model], len(audio) / together.sample_rate)
                for model, judge in judges.items()
            }
            said = {
                model: {"heard": a.heard, "meter": a.meter, "sure": a.sure} for model, a in answers.items()
            }
            rows.append({"set": which, "id": name, "label": label, "said": said})
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    PAGE.write_text(
        renewed(PAGE.read_text(encoding="utf-8"), "refusals", table(rows, list(judges))), encoding="utf-8"
    )


def table(rows: list[dict[str, Any]], models: list[str]) -> str:
    """Shares of answers that no meter is heard, by set; and of sure answers, the share and how many of them
    are right."""
    wholes = {
        "all kinds that calibration knows": FITTED,
        "all kinds that it does not know": UNSEEN,
        "all kinds": KINDS,
    }
    named = [(kind, (kind,)) for kind in KINDS] + list(wholes.items())
    named += [(name, (name,)) for name in dict.fromkeys(row["set"] for row in rows) if name not in KINDS]
    lines = [
        "| no meter heard, % | n | " + " | ".join(f"`{m}`" for m in models) + " |",
        "|---|---:|" + "---:|" * len(models),
    ]
    for title, sets in named:
        inside = [row for row in rows if row["set"] in sets]
        if inside:
            cells = [share([row["said"][m]["meter"] is None for row in inside]) for m in models]
            lines.append(f"| {title} | {len(inside)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| sure answers, % | n | " + " | ".join(f"`{m}`" for m in models) + " |",
        "|---|---:|" + "---:|" * len(models),
    ]
    for title, sets in named:
        inside = [row for row in rows if row["set"] in sets]
        if title in KINDS or not inside:
            continue
        lines.append(
            f"| {title} | {len(inside)} | "
            + " | ".join(share([row["said"][m]["sure"] for row in inside]) for m in models)
            + " |"
        )
        labelled = [row for row in inside if row["label"] is not None]
        if labelled:
            cells = [
                share([row["said"][m]["meter"] == row["label"] for row in labelled if row["said"][m]["sure"]])
                for m in models
            ]
            lines.append(f"| {title}: right of those | {len(labelled)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(hits: list[bool]) -> str:
    """A share in percent with Wilson's interval."""
    low, high = wilson(sum(hits), len(hits))
    return f"{100 * np.mean(hits):.1f} [{100 * low:.1f}, {100 * high:.1f}]" if hits else "-"


if __name__ == "__main__":
    main()
