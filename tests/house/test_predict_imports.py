"""An answer is quick because little is loaded for it: this names everything."""

from __future__ import annotations

# Packages outside the standard library that `beatmeter predict song.wav` may load itself. What PyTorch and
# NumPy load beside them is theirs.
MAY = {"beatmeter", "click", "jaxtyping", "numpy", "safetensors", "soundfile", "soxr", "torch", "tqdm"}
HEAVY = (
    "scipy",
    "sklearn",
    "librosa",
    "pandas",
    "transformers",
    "peft",
    "matplotlib",
    "zarr",
    "h5py",
    "numba",
)

RUN = """
import json, sys
from beatmeter.cli import main
sys.argv = ["beatmeter", "predict", sys.argv[1]]
try:
    main()
finally:
    print("loaded", json.dumps(sorted(sys.modules)))
"""
