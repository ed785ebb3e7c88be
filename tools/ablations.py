"""Runs the ablations on synthetic music and renews their tables and figures in docs/ablations.md.

    python tools/ablations.py                  all of them, into runs/ablations
    python tools/ablations.py smoothing        only these; the others stay as they are on the page

What is finished is kept, so a stopped run goes on. Where audio streams through the backbone, all systems
start from the same head, which has learned from frozen features: few epochs then say what moving the backbone
is worth.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

from beatmeter.cli import cli
from beatmeter.experiments.ablation.plan import load_plan

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ablations.md"
FIGURES = PAGE.with_name("ablations")
PLANS = ("smoothing", "lora-rank", "frozen-or-lora", "extra-data", "phase-augmentation", "layers")
CLIPS, MORE, SECONDS, SEEDS = 360, 240, "10", "0-2"


def streams(plan: str) -> bool:
    """Whether audio goes through the backbone in a plan: there an epoch is dear."""
    loaded = load_plan(plan)
    return "streamed" in {
        loaded.base.regime,
        *(str(settings.get("regime", "")) for settings in loaded.systems.values()),
    }


def block(plan: str, content: str) -> str:
    """The part of the page that belongs to a plan."""
    return f"<!-- {plan} -->\n{content.strip()}\n<!-- end of {plan} -->"


def renewed(page: str, plan: str, content: str) -> str:
    """The page with the part of a plan exchanged."""
    pattern = rf"<!-- {plan} -->\n.*?<!-- end of {plan} -->"
    if not re.search(pattern, page, re.DOTALL):
        raise ValueError(f"{PAGE} has no part for {plan}: add {block(plan, '')!r}")
    return re.sub(pattern, lambda _: block(plan, content), page, flags=re.DOTALL)


def main() -> None:
    """Make the music, run the plans, renew the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plans", nargs="*", default=PLANS, metavar="PLAN")
    parser.add_argument("--out", type=Path, default=Path("runs") / "ablations")
    parser.add_argument(
        "--limit", type=int, default=96, help="tracks of each split where audio streams through the backbone"
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs there")
    given = parser.parse_args()
    for name, clips, seed in (("music", CLIPS, 0), ("more", MORE, 1)):
        call(
            "data",
            "synth",
            str(given.out / name),
            "--clips",
            str(clips),
            "--seconds",
            SECONDS,
            "--seed",
            str(seed),
            "--jobs",
            "2",
        )
    head = given.out / "head"
    if not (head / "run.json").exists() or "finished" not in (head / "run.json").read_text(encoding="utf-8"):
        call(
            "train",
            "--frozen",
            str(given.out / "music"),
            "--recipe",
            "embedded-lag",
            *cache(given.out),
            "--out",
            str(head),
        )
    further = given.out / "more" / "further.csv"
    write_further(further)
    for plan in given.plans:
        extra = ["--extra-data", str(further)] if load_plan(plan).needs_extra else []
        values = {
            "limit": given.limit,
            "training.epochs": given.epochs,
            "training.accumulation": 1,
            "training.head_lr": 3e-4,
            "training.start": head,
        }
        few = (
            [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
            if streams(plan)
            else []
        )
        words = ["ablate", plan, str(given.out / "music"), *extra, "--seeds", SEEDS, *few]
        call(*words, "--cache", str(given.out / "cache"), "--out", str(given.out / plan))
        FIGURES.mkdir(exist_ok=True)
        (FIGURES / f"{plan}.svg").write_text(
            (given.out / plan / "figure-val.svg").read_text(encoding="utf-8"), encoding="utf-8"
        )
        table = (given.out / plan / "table-val.md").read_text(encoding="utf-8")
        content = (
            f"{table.strip()}\n\n    beatmeter "
            f"{' '.join(words)}\n\n![{load_plan(plan).title}](ablations/{plan}.svg)"
        )
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), plan, content), encoding="utf-8")


def cache(out: Path) -> list[str]:
    """Where features are kept."""
    return ["--set", f"features.cache={out / 'cache'}"]


def write_further(path: Path) -> None:
    """A table of the further clips without their splits: all to train with."""
    with (path.parent / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [[row["id"], row["file"], row["class"], row["group"]] for row in csv.DictReader(file)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["id", "file", "class", "group"], *rows])


def call(*arguments: str) -> None:
    """A command of beatmeter, in this process."""
    print("beatmeter", " ".join(arguments), flush=True)
    try:
        cli.main(list(arguments), standalone_mode=False)
    except SystemExit as end:
        if end.code not in (0, 1):
            raise


if __name__ == "__main__":
    main()
