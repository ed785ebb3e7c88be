"""Runs the controlled comparison and renews docs/comparison.md: `make comparison`, or

    python tools/comparison.py --on METER-DEV [--backbone MODEL ...]

Finished runs in runs/study are kept, so the same command goes on. Everything that `beatmeter study` takes may
be given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablations import call, renewed

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparison.md"
FIGURES = PAGE.with_name("comparison")
OUT = Path("runs") / "study"
MUSIC = Path("data") / "study"


def main() -> None:
    """Make the music, run the study, put its tables and figures into the page."""
    call("data", "synth", str(MUSIC), "--clips", "900", "--seed", "1", "--jobs", "2")
    call("study", str(MUSIC), "--out", str(OUT), *sys.argv[1:])
    FIGURES.mkdir(exist_ok=True)
    figures = sorted(OUT.glob("figure-*.svg"), key=lambda path: path.stem != "figure-test")
    for path in figures:
        (FIGURES / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    shown = "\n".join(f"![{path.stem.removeprefix('figure-')}](comparison/{path.name})" for path in figures)
    table = (OUT / "table.md").read_text(encoding="utf-8").strip()
    PAGE.write_text(
        renewed(PAGE.read_text(encoding="utf-8"), "tables", f"{shown}\n\n{table}"), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
