"""librosa's kernels: `python tests/kernels.py` compiles them, and each process of tests takes a copy.

Two processes that keep what they compile in one folder at once have crashed, and compiling takes
20 seconds."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from pathlib import Path

COMPILED = Path(__file__).resolve().parents[1] / "build" / "kernels"


def own_kernels(name: str) -> Path:
    """The folder for one process, begun with what was compiled for all."""
    folder = Path(tempfile.gettempdir()) / f"beatmeter-kernels-{name}"
    if COMPILED.is_dir():
        shutil.copytree(COMPILED, folder, dirs_exist_ok=True)
    return folder


if __name__ == "__main__":
    os.environ["NUMBA_CACHE_DIR"] = str(COMPILED)
    for module in ("audio", "pitch", "spectrum"):
        importlib.import_module(f"librosa.core.{module}")
