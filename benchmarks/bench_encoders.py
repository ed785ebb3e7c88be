"""How fast features are made by encoders other than MERT, next to a plain `AutoModel` loop over the same
checkpoint and the same files.

Once as a test, small: `pytest benchmarks/bench_encoders.py`. Timed, on the shape of wav2vec2-base: `make
bench PART=encoders`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import plain_extraction as plain
import pytest
import torch
from bench_extraction import SECONDS, Ours
from harness import Bench
from transformers import AutoModel, Wav2Vec2Config, Wav2Vec2Model

from beatmeter.audio.chunking import chunk_starts
from beatmeter.runtime.device import choose_device
from beatmeter.schema import ChunkSpec

RATE = 16_000
CLIPS = {"cpu": 8, "cuda": 256}
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
    "conv_dim": [32] * 7,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*slated for removal:DeprecationWarning"
)  # what librosa.load imports


def make_checkpoint(folder: Path, **shape: Any) -> None:
    """wav2vec 2.0 with random weights, of the base's shape unless told otherwise, in the hub's format."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**shape)).save_pretrained(folder)
    about = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": RATE,
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(about))


@torch.inference_mode()
def plain_loop(model: Any, paths: Sequence[Path], chunk: ChunkSpec) -> list[np.ndarray]:
    """Mean and maximum over the frames of every chunk and layer, (chunk, layer, 2, dim) per file."""
    result = []
    for path in paths:
        wave, _ = librosa.load(path, sr=RATE, mono=True)
        rows = []
        for start in chunk_starts(len(wave), chunk):
            x = torch.from_numpy(wave[start : start + chunk.length])
            x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-7)
            out = model(x[None].to(model.device), output_hidden_states=True)
            rows.append(
                torch.stack([torch.stack([s[0].mean(0), s[0].amax(0)]) for s in out.hidden_states[1:]])
            )
        result.append(torch.stack(rows).cpu().numpy())
    return result


def test_wav2vec2_base(bench: Bench, tmp_path: Path) -> None:
    device = choose_device()
    make_checkpoint(tmp_path / "weights", **({} if bench.timed else SMALL))
    model = AutoModel.from_pretrained(tmp_path / "weights").eval().to(device)
    n = CLIPS.get(device.type, 16) if bench.timed else 2
    paths = plain.make_clips(tmp_path / "clips", n, SECONDS if bench.timed else 11.0)
    ours = Ours(tmp_path / "weights", tmp_path / "cache", dtype="auto" if bench.timed else "float32")
    chunk = ours.service.spec.chunk
    expected = plain_loop(model, paths[:1], chunk)[0]
    found = ours.extract(paths[:1]).snapshot().read(paths[0].stem).pooled["stats"].values
    same = slice(0, len(expected) - 1)  # librosa may give one sample more, which moves the last chunk
    relative = np.linalg.norm(found[same] - expected[same]) / np.linalg.norm(expected[same])
    assert relative < (0.02 if ours.service.dtype == "bfloat16" else 0.002), relative
    bench.compare(
        f"{'wav2vec2-base' if bench.timed else 'small'}: {n} stereo MP3s of {SECONDS:g} s to a store",
        {
            "plain AutoModel loop": lambda: plain_loop(model, paths, chunk),
            "beatmeter": lambda: ours.extract(paths),
        },
        base="plain AutoModel loop",
        ours="beatmeter",
        rounds=3,
        amount=n,
        unit="clips",
        targets={"plain AutoModel loop": 2.0},
        before=lambda name: ours.reset(),
        note=f"Random weights; computed in {ours.service.dtype}.",
    )
