"""Proof that a refactoring moved no number: fingerprints, stored features, a saved run, and the answers of
all shipped models.

    python tools/same_numbers.py capture MUSIC/ --out before  # in the old tree
    python tools/same_numbers.py check before                 # in the new tree: status 1 when a number moved

Everything goes through the command line, so that the two trees may be built in any way. MUSIC is a folder of
audio files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TOLERANCE = 1e-6  # of scores and metrics; features are equal bit for bit
BACKBONES = {"spectral": "stats,lag,frames", "embedded": "stats,lag,frames"}
MODELS = (
    "spectral-lag",
    "embedded-lag",
    "embedded-lora",
    "spectral-long",
    "embedded-long",
    "ensemble",
    "ensemble-long",
)
CLIPS, SECONDS = 36, 12.0


def beatmeter(*arguments: object) -> str:
    """The standard output of one command of the tree that this file belongs to."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "beatmeter", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def features(clips: Path) -> dict[str, Any]:
    """Fingerprint, and a hash of the rows of every pooling, for every backbone that ships."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for backbone, poolings in BACKBONES.items():
            cache = Path(folder) / backbone
            settings = (
                "--set",
                f"features.backbone={backbone}",
                "--set",
                f"features.poolings={poolings}",
                "--set",
                "features.dtype=float32",
            )
            beatmeter("extract", clips, "--cache", cache, *settings, "--limit", 6)
            store = next(p for p in sorted(cache.iterdir()) if (p / "zarr.json").exists())
            exported = Path(folder) / f"{backbone}.h5"
            beatmeter("cache", "export", store, "--out", exported)
            with h5py.File(exported) as file:
                found[f"{backbone}: fingerprint"] = str(file.attrs["fingerprint"])
                for name in sorted(file):
                    if isinstance(file[name], h5py.Group):
                        found[f"{backbone}: {name}"] = hashlib.sha256(
                            np.ascontiguousarray(file[name]["values"][()]).tobytes()
                        ).hexdigest()
    return found


def answers(music: Path) -> dict[str, Any]:
    """The scores of every shipped model for every file that it can read."""
    found: dict[str, Any] = {}
    for model in MODELS:
        for line in beatmeter("predict", model, music, "--json").splitlines():
            answer = json.loads(line)
            if "scores" in answer:
                found[f"{model}: {Path(answer['file']).name}"] = answer["scores"]
    return found


def metrics(run: Path, clips: Path) -> dict[str, Any]:
    """Every metric of a saved run on its own test split."""
    beatmeter("evaluate", run)
    values = json.loads((run / "evaluation" / "test.json").read_text(encoding="utf-8"))
    return {"saved run": dict(_numbers(values["metrics"]))}


def _numbers(value: Any, path: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            for pair in _numbers(item, f"{path}/{key}" if path else str(key))
        ]
    if isinstance(value, list):
        return [pair for i, item in enumerate(value) for pair in _numbers(item, f"{path}/{i}")]
    return [(path, float(value))] if isinstance(value, int | float) and not isinstance(value, bool) else []


def measure(folder: Path, music: Path) -> dict[str, Any]:
    """Everything that must not move, by name."""
    return {**features(folder / "clips"), **metrics(folder / "run", folder / "clips"), **answers(music)}


def capture(music: Path, out: Path) -> None:
    """Make clips and a run in `out`, and write down all numbers of this tree."""
    shutil.rmtree(out, ignore_errors=True)
    beatmeter("data", "synth", out / "clips", "--clips", CLIPS, "--seconds", SECONDS)
    small = ("--set", "training.epochs=3", "--set", f"features.cache={out / 'cache'}")
    beatmeter("train", "--frozen", out / "clips", "--recipe", "spectral-lag", "--out", out / "run", *small)
    numbers = {"music": str(music.resolve()), "numbers": measure(out, music)}
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(f"{len(numbers['numbers'])} numbers of this tree are in {out / 'numbers.json'}")


def check(out: Path) -> int:
    """Compare this tree with what was captured, and say how far each family of numbers moved."""
    before = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    now = measure(out, Path(before["music"]))
    moved = []
    largest = 0.0
    for name, old in before["numbers"].items():
        new = now.get(name)
        if isinstance(old, str) or new is None:
            if new != old:
                moved.append(f"{name}: {old} became {new}")
            continue
        apart = max((abs(old[k] - new.get(k, np.inf)) for k in old), default=0.0)
        largest = max(largest, apart)
        if not apart <= TOLERANCE:
            moved.append(f"{name}: moved by {apart:.3g}")
    print(f"{len(before['numbers'])} numbers compared, largest difference {largest:.3g}, {len(moved)} moved")
    print("\n".join(moved[:40]))
    return 1 if moved else 0


def main() -> int:
    """The command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("capture", help="write down the numbers of this tree")
    first.add_argument("music", type=Path)
    first.add_argument("--out", type=Path, required=True)
    second = commands.add_parser("check", help="compare this tree with what was captured")
    second.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.command == "capture":
        capture(given.music, given.out)
        return 0
    return check(given.out)


if __name__ == "__main__":
    sys.exit(main())
