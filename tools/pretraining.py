"""Pre-trains the embedded backbone in several ways at equal budget, compares them as frozen features, and
renews docs/pretraining.md.

    python tools/pretraining.py               from nothing: all ways, two at a time, into runs/pretraining
    python tools/pretraining.py --study on    from the weights of `embedded`, over music that is hard to hear

Equal budget is the same number of steps over the same seconds of the same generator. What is finished is
kept: the same command goes on. Of the second study some ways may be left out (--only).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from ablations import call, renewed
from new_default import GROUPS, change, points, right

from beatmeter.datasets import open_dataset
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.predictions import open_predictions
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.runtime.cores import usable_cores
from beatmeter.settings import DataConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pretraining.md"


@dataclass(frozen=True)
class Study:
    """Ways to pre-train, the first of them the reference, and how heads are trained on each: on what music,
    by which recipe. `systems` are other backbones beside them; `part` names its figure and its parts of the
    page, which tells kinds of music apart where `music` is none that is made here (tools/meter_data.py has
    kinds)."""

    part: str
    title: str
    question: str
    steps: int
    ways: dict[str, tuple[str, ...]]
    systems: dict[str, str]
    recipe: str
    music: tuple[str, ...]
    limit: int

    @property
    def reference(self) -> str:
        """The way that the others are compared with."""
        return next(iter(self.ways))

    @property
    def figure(self) -> Path:
        """Where the figure of the heads lies."""
        return PAGE.parent / "ablations" / f"{self.part}.svg"


ON = (
    *("start=embedded", "clips=12", "chunks=2", "long_after=0", "longest_lag=14"),
    *("average=0.998", "lr=1e-3", "warmup=150"),
)
MORE_LOSSES = ("chord_weight=0.25", "company_weight=0.5", "grouping_weight=0.5")
STUDIES = {
    "fresh": Study(
        "pretraining",
        "Pre-training at equal budget",
        "What must a small backbone be taught?",
        1000,
        {
            "all losses, 30 s": (),
            "all losses, 10 s": ("chunks=2", "clips=12"),
            "all losses, 5 s": ("chunks=1", "clips=24"),
            "no lag loss": ("lag_weight=0",),
            "masked spectra alone": ("frame_weight=0", "lag_weight=0"),
        },
        {"untrained": "embedded-untrained", "shipped": "embedded"},
        "embedded-lag",
        ("data", "synth", "MUSIC", "--clips", "900", "--seed", "1", "--jobs", "2"),
        400,
    ),
    "on": Study(
        "pretraining-on",
        "Pre-training that goes on, at equal budget",
        "What does a backbone that knows ordinary music learn from more?",
        1400,
        {
            "hard music, all losses": (*ON, "hard=0.6", *MORE_LOSSES),
            "hard music": (*ON, "hard=0.6"),
            "ordinary music": ON,
        },
        {"embedded": "embedded"},
        "embedded-long",
        (),
        1200,
    ),
}
METRICS = ["balanced_accuracy", "accuracy", "three_against_four", "log_loss"]


def folder(out: Path, name: str) -> Path:
    """Where one way's attempt lies."""
    return out / name.replace(",", "").replace(" ", "-")


def made(out: Path, name: str, study: Study, steps: int, threads: int) -> None:
    """One pre-training, in a process of its own; goes on with what was begun, leaves what is finished."""
    where = folder(out, name)
    if (where / "backbone" / "config.json").exists():
        return
    begun = (where / "last.safetensors").exists()
    settings = [
        word for value in (f"steps={steps}", "save_every=100", *study.ways[name]) for word in ("--set", value)
    ]
    words = ["--resume", str(where)] if begun else ["--out", str(where), *settings]
    where.mkdir(parents=True, exist_ok=True)
    with (where / "output.txt").open("a", encoding="utf-8") as output:
        command = [sys.executable, "-m", "beatmeter", "pretrain", *words]
        subprocess.run(
            command,
            check=True,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def plan(out: Path, study: Study, names: list[str]) -> Path:
    """The ablation that compares the backbones: the same frozen lag head on each."""
    systems = {**study.systems, **{name: str(folder(out, name) / "backbone") for name in names}}
    text = f"title = {json.dumps(study.title)}\nquestion = {json.dumps(study.question)}\n"
    text += f'recipe = [{json.dumps(study.recipe)}]\nseeds = "0-2"\n'
    text += f"baseline = {json.dumps(study.reference)}\nmetrics = {json.dumps(METRICS)}\n"
    for name, backbone in systems.items():
        text += (
            f"\n[[system]]\nname = {json.dumps(name)}\nsettings.features.backbone = {json.dumps(backbone)}\n"
            'settings.features.poolings = ["lag"]\nsettings.head.poolings = ["lag"]\n'
        )
    path = out / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def history(out: Path, reference: str, names: list[str]) -> str:
    """What the logs say: the last losses, and the meter's held-out accuracy on the way."""
    logs = {name: read_json_lines(folder(out, name) / "log.jsonl").values for name in names}
    steps = [line["step"] for line in logs[reference] if "held_out_accuracy" in line][1::2]
    lines = [
        f"| way | beat | downbeat | spectrum | meter | {' | '.join(f'step {step}' for step in steps)} |",
        "|---|" + "---:|" * (4 + len(steps)),
    ]
    for name, log in logs.items():
        losses = [
            f"{log[-1][key]:.3f}" if key in log[-1] else ""
            for key in ("beat", "downbeat", "spectrum", "meter")
        ]
        heard = {
            line["step"]: f"{100 * line['held_out_accuracy']:.0f}"
            for line in log
            if "held_out_accuracy" in line
        }
        lines.append(f"| {name} | {' | '.join([*losses, *(heard.get(step, '') for step in steps)])} |")
    return "\n".join(lines)


def by_kind(heads: Path, systems: list[str], music: Path) -> str:
    """Right answers of every system by kind of music, the mean over seeds, and what it has beyond the one
    before it."""
    seeds = {name: sorted(heads.glob(f"{folder(heads, name).name}_seed-*")) for name in systems}
    runs = {str(run): open_predictions(run, "val") for paths in seeds.values() for run in paths}
    found = align(runs).members
    first = next(iter(found.values()))
    tracks = {t.id: t for t in open_dataset(music, DataConfig(), first.classes).tracks}
    hits = [np.mean([right(found[str(run)]) for run in seeds[name]], axis=0) for name in systems]
    lines = [f"| right, % | n | {' | '.join(systems)} |", "|---|---:|" + "---:|" * len(systems)]
    for title, inside in {"all": lambda t: True, **GROUPS}.items():
        at = np.array([inside(tracks[name]) for name in first.ids])
        groups = [g for g, used in zip(first.groups, at, strict=True) if used]
        cells = [f"{100 * hits[0][at].mean():.1f}"]
        for a, b in pairwise(hits):
            cells.append(f"{100 * b[at].mean():.1f} ({points(change(a[at], b[at], groups))})")
        lines.append(f"| {title} | {int(at.sum())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Pre-train, compare, renew the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=STUDIES, default="fresh")
    parser.add_argument("--out", type=Path, default=Path("runs") / "pretraining")
    parser.add_argument("--steps", type=int, help="of every way  [default: 1000, of those that go on 1400]")
    parser.add_argument("--only", nargs="*", help="ways, the reference among them  [default: all]")
    parser.add_argument("--jobs", type=int, default=2, help="pre-trainings at a time")
    parser.add_argument(
        "--music", type=Path, help="data set that heads are trained and chosen with  [default: made]"
    )
    given = parser.parse_args()
    study = STUDIES[given.study]
    names = [name for name in study.ways if not given.only or name in given.only]
    if study.reference not in names or len(names) < len(given.only or ()):
        sys.exit(f"--only takes {study.reference!r} and others of: {', '.join(study.ways)}")
    threads = max(1, usable_cores() // given.jobs)
    steps = given.steps or study.steps
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda name: made(given.out, name, study, steps, threads), names))
    music = given.music or given.out / f"music-{given.study}"
    if given.music is None:
        if study.music:
            call(*(str(music) if word == "MUSIC" else word for word in study.music))
        else:
            tool = Path(__file__).with_name("meter_data.py")
            subprocess.run([sys.executable, str(tool), str(music), "--jobs", "2"], check=True)
    words = ["ablate", str(plan(given.out, study, names)), str(music), "--set", f"limit={study.limit}"]
    heads = given.out / f"heads-{given.study}"
    call(*words, "--cache", str(given.out / "cache"), "--out", str(heads))
    study.figure.write_text((heads / "figure-val.svg").read_text(encoding="utf-8"), encoding="utf-8")
    table = (heads / "table-val.md").read_text(encoding="utf-8").strip()
    told = history(given.out, study.reference, names)
    page = renewed(PAGE.read_text(encoding="utf-8"), f"{study.part} history", told)
    shown = f"{table}\n\n![{study.title}](ablations/{study.figure.name})"
    page = renewed(page, f"{study.part} heads", shown)
    if not study.music:
        page = renewed(page, f"{study.part} kinds", by_kind(heads, [*study.systems, *names[::-1]], music))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
