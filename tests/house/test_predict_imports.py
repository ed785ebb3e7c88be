"""An answer is quick because little is loaded for it: this names everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

# Packages outside the standard library that `beatmeter predict song.wav` may load, and what these load
# themselves. No scipy, scikit-learn, librosa, pandas, transformers, zarr: half a second and more each.
MAY = {"beatmeter", "click", "jaxtyping", "numpy", "safetensors", "soundfile", "soxr", "torch", "tqdm"}
THEIRS = {
    "_cffi_backend",
    "_distutils_hack",  # setuptools, where it is installed, puts it into every process
    "_soundfile",
    "_soundfile_data",
    "cython_runtime",
    "torchgen",
    "typing_extensions",
}
# Rooms of our own that an answer does not enter
NOT = ("datasets.annotations", "evaluation.report", "experiments", "features.extraction", "store")

RUN = """
import json, sys
from beatmeter.cli import main
before = sys.argv.pop(1)
sys.argv[0] = "beatmeter"
try:
    main()
finally:
    open(before, "w").write(json.dumps(sorted(sys.modules)))
"""


def test_predict_loads_what_it_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "song.wav", 0.1 * rng.standard_normal(24_000 * 6), 24_000)
    listed = tmp_path / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(listed), "predict", str(tmp_path / "song.wav")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'song.wav'}\t")
    loaded = json.loads(listed.read_text())
    packages = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    strangers = {name for name in packages - MAY - THEIRS if not name.startswith("__")}
    assert strangers == set(), f"add to MAY what an answer needs, or import {strangers} where it is used"
    assert [name for name in loaded if name.startswith(tuple(f"beatmeter.{room}" for room in NOT))] == []
