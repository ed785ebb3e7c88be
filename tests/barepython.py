"""Runs a program as a machine without this project would: importing any of its libraries fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_BARE = """
import runpy, sys
for name in ("torch", "beatmeter", "transformers", "jaxtyping", "scipy", "librosa"):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def said_without_us(program: Path, *arguments: object, cwd: Path) -> Any:
    """The JSON that `program` prints when numpy and onnxruntime are all it has."""
    words = [sys.executable, "-c", _BARE, str(program), *map(str, arguments)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True, cwd=cwd).stdout)
