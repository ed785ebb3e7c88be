"""Pre-trains the embedded backbone in several ways at equal budget, compares them as frozen features, and
renews docs/pretraining.md.

    python tools/pretraining.py               all ways, two at a time, into runs/pretraining

Equal budget is the same number of steps over the same seconds of the same generator. What is finished is
kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablations import call, renewed

from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.runtime.cores import usable_cores

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pretraining.md"
FIGURE = PAGE.parent / "ablations" / "pretraining.svg"
REFERENCE = "all losses, 30 s"
WAYS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "all losses, 10 s": ("chunks=2", "clips=12"),
    "all losses, 5 s": ("chunks=1", "clips=24"),
    "no lag loss": ("lag_weight=0",),
    "masked spectra alone": ("frame_weight=0", "lag_weight=0"),
}
METRICS = ["balanced_accuracy", "accuracy", "three_against_four", "log_loss"]


def folder(out: Path, name: str) -> Path:
    """Where one way's attempt lies."""
    return out / name.replace(",", "").replace(" ", "-")


def made(out: Path, name: str, steps: int, threads: int) -> None:
    """One pre-training, in a process of its own; goes on with what was begun, leaves what is finished."""
    where = folder(out, name)
    if (where / "backbone" / "config.json").exists():
        return
    begun = (where / "last.safetensors").exists()
    settings = [
        word for value in (f"steps={steps}", "save_every=100", *WAYS[name]) for word in ("--set", value)
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


def plan(out: Path) -> Path:
    """The ablation that compares the backbones: the same frozen lag head on each."""
    systems = {
        "untrained": "embedded-untrained",
        "shipped": "embedded",
        **{name: str(folder(out, name) / "backbone") for name in WAYS},
    }
    text = (
        'title = "Pre-training at equal budget"\nquestion = "What must a small backbone be taught?"\nrecipe '
        '= ["embedded-lag"]\nseeds = "0-2"\n'
    )
    text += f"baseline = {json.dumps(REFERENCE)}\nmetrics = {json.dumps(METRICS)}\n"
    for name, backbone in systems.items():
        text += (
            f"\n[[system]]\nname = {json.dumps(name)}\nsettings.features.backbone = {json.dumps(backbone)}\n"
        )
    path = out / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def history(out: Path) -> str:
    """What the logs say: the last losses, and the meter's held-out accuracy on the way."""
    logs = {name: read_json_lines(folder(out, name) / "log.jsonl").values for name in WAYS}
    steps = [line["step"] for line in logs[REFERENCE] if "held_out_accuracy" in line][1::2]
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


def main() -> None:
    """Pre-train, compare, renew the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs") / "pretraining")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="pre-trainings at a time")
    parser.add_argument(
        "--clips", type=int, default=900, help="clips of 30 s that the heads are trained and chosen with"
    )
    parser.add_argument("--limit", type=int, default=400, help="of them, those of each split at most")
    given = parser.parse_args()
    threads = max(1, usable_cores() // given.jobs)
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda name: made(given.out, name, given.steps, threads), WAYS))
    call("data", "synth", str(given.out / "music"), "--clips", str(given.clips), "--seed", "1", "--jobs", "2")
    words = ["ablate", str(plan(given.out)), str(given.out / "music"), "--set", f"limit={given.limit}"]
    call(*words, "--cache", str(given.out / "cache"), "--out", str(given.out / "heads"))
    FIGURE.write_text((given.out / "heads" / "figure-val.svg").read_text(encoding="utf-8"), encoding="utf-8")
    table = (given.out / "heads" / "table-val.md").read_text(encoding="utf-8").strip()
    page = renewed(PAGE.read_text(encoding="utf-8"), "history", history(given.out))
    PAGE.write_text(
        renewed(page, "heads", f"{table}\n\n![Frozen heads on each](ablations/pretraining.svg)"),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
