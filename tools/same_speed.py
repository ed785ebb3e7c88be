"""Proof that a refactoring made nothing slower: the benchmark page's ratios, from two trees in turn.

    python tools/same_speed.py BASE [--only 'warm or cold or writing'] [--rounds 2]

BASE is a commit. Its benchmarks run in a worktree of it, those of this tree beside them, old and new in turn,
so that what disturbs one disturbs the other. A ratio is a way's speed over that of the row's named baseline
in the same run; status 1 when one of this tree is more than LOST below the old one. Nothing else should run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from beatmeter.runtime.artifacts import read_json_lines

ROOT = Path(__file__).resolve().parents[1]
OURS = ("store", "beatmeter")  # the ways that are ours, in every row
LOST = 0.05
ROWS = "warm_reads or cold_reads or writing or (extraction and 95M) or lora or thirty_epochs"


def rows(tree: Path, only: str, lines: Path) -> dict[str, float]:
    """Our speed over the baseline's in each row of one run of `tree`'s benchmarks: the median over rounds."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "BEATMETER_BENCH_LINES": str(lines)}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "--benchmark-enable", "--benchmark-quiet"]
    names = [str(path.relative_to(tree)) for path in sorted((tree / "benchmarks").glob("bench_*.py"))]
    done = subprocess.run(
        [*command, "-k", only, *names], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if not lines.exists():
        raise SystemExit(f"{tree} measured nothing.\n{done.stdout}{done.stderr}")
    found = {}
    for line in read_json_lines(lines).values:
        if line["result"] == "Comparison":
            seconds, base = line["seconds"], line["base"]
            for way in set(OURS) & set(seconds):
                pairs = zip(seconds[base], seconds[way], strict=True)
                found[f"{line['part']}: {line['title']}"] = statistics.median(b / w for b, w in pairs)
    return found


def main() -> int:
    """Measure both trees `--rounds` times in turn, and print each row's two ratios and what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("--only", default=ROWS, help="which benchmarks, as pytest's -k")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each tree")
    asked = parser.parse_args()
    ratios: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", old, asked.base], cwd=ROOT, check=True)
        try:
            for turn in range(2 * asked.rounds):
                which = (turn + turn // 2) % 2  # old new, new old, old new ...
                lines = Path(folder) / f"{turn}.jsonl"
                for row, ratio in rows((old, ROOT)[which], asked.only, lines).items():
                    ratios[row][which].append(ratio)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=True)
    slower = 0
    for row, (before, after) in ratios.items():
        if not (before and after):
            print(f"{row}: only {'after' if after else 'before'}")
            continue
        change = statistics.median(after) / statistics.median(before) - 1
        slower += change < -LOST
        shown = [" ".join(f"{value:.3g}" for value in values) for values in (before, after)]
        print(f"{row}: {shown[0]} -> {shown[1]} x the baseline's speed, {100 * change:+.1f} %")
    print(f"{slower} of {len(ratios)} rows lost more than {100 * LOST:g} %")
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())
