"""What extraction is measured against: a checkpoint folder of any size with random weights, the plain loop
over files as most people write it (librosa, transformers, one chunk at a time, every hidden state), and
matrix products alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from transformers import HubertConfig, HubertModel

from beatmeter.schema import ChunkSpec

CHUNK = ChunkSpec()
SIZES: dict[str, dict[str, object]] = {
    "95M": {},
    "330M": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
    },
    "post-LN": {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": [32] * 7,
    },
    "pre-LN": {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": [32] * 7,
        "do_stable_layer_norm": True,
    },
}


def make_model(size: str, folder: Path) -> HubertModel:
    """A transformers model with random weights, which are also in `folder` in the hub's format."""
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(apply_spec_augment=False, layerdrop=0.0, **SIZES[size])).eval()
    folder.mkdir(parents=True)
    config = model.config.to_dict()
    kept = {
        name: config[name]
        for name in config
        if isinstance(config[name], str | int | float | bool | list | tuple)
    }
    (folder / "config.json").write_text(json.dumps({**kept, "model_type": "mert_model"}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"sampling_rate": CHUNK.sample_rate, "do_normalize": True})
    )
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def make_clips(folder: Path, n: int, seconds: float, kind: str = "mp3") -> list[Path]:
    """Stereo files at 44.1 kHz with noise and clicks."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        t = np.arange(round(seconds * 44_100)) / 44_100
        wave = 0.3 * np.sin(2 * np.pi * (200 + 40 * i) * t) * np.exp(
            -6 * (t % (0.3 + 0.02 * i))
        ) + 0.02 * rng.standard_normal(len(t))
        paths.append(folder / f"{i:03d}.{kind}")
        soundfile.write(paths[-1], np.stack([wave, 0.8 * wave], 1), 44_100)
    return paths


@torch.inference_mode()
def plain_loop(model: HubertModel, paths: Sequence[Path]) -> list[np.ndarray]:
    """Mean and maximum over the frames of every 5-s chunk and layer, (chunk, layer, 2, dim) per file, on the
    model's device."""
    result = []
    for path in paths:
        wave, _ = librosa.load(path, sr=CHUNK.sample_rate, mono=True)
        starts = list(range(0, len(wave) - CHUNK.length + 1, CHUNK.hop)) or [0]
        if len(wave) > CHUNK.length and len(wave) - (starts[-1] + CHUNK.length) > CHUNK.tail_min:
            starts.append(len(wave) - CHUNK.length)
        rows = []
        for start in starts:
            chunk = torch.from_numpy(wave[start : start + CHUNK.length])
            chunk = (chunk - chunk.mean()) / torch.sqrt(chunk.var(correction=0) + 1e-7)
            out = model(chunk[None].to(model.device), output_hidden_states=True)
            states = [*out.hidden_states[1:-1], out.last_hidden_state]
            rows.append(torch.stack([torch.stack([s[0].mean(0), s[0].amax(0)]) for s in states]))
        result.append(torch.stack(rows).cpu().numpy())
    return result


def multiply_adds(model: HubertModel, samples: int) -> float:
    """Multiply-adds of one chunk of `samples` samples: convolutions, projections, attention."""
    c = model.config
    total, channels, length = 0.0, 1, samples
    for dim, kernel, stride in zip(c.conv_dim, c.conv_kernel, c.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        total += length * dim * channels * kernel
        channels = dim
    d, f = c.hidden_size, length
    total += f * channels * d + f * d * (d // c.num_conv_pos_embedding_groups) * c.num_conv_pos_embeddings
    return total + c.num_hidden_layers * (4 * f * d * d + 2 * f * f * d + 2 * f * d * c.intermediate_size)


class Products:
    """Large bfloat16 matrix products, one on every core at once, or one after the other on a GPU: the most
    that the device gives."""

    def __init__(self, multiply_adds: float, device: torch.device) -> None:
        self.device = device
        self.size, self.lanes = (8192, 1) if device.type == "cuda" else (2048, torch.get_num_threads())
        self.a, self.b = (
            torch.randn(self.size, self.size, device=device).to(torch.bfloat16) for _ in range(2)
        )
        self.each = max(1, round(multiply_adds / self.size**3 / self.lanes))
        self.threads = ThreadPoolExecutor(self.lanes)

    @property
    def multiply_adds(self) -> float:
        """In one call."""
        return float(self.each * self.lanes * self.size**3)

    def __call__(self) -> None:
        list(self.threads.map(self._work, range(self.lanes)))

    def _work(self, _: int) -> None:
        torch.set_num_threads(1)
        for _ in range(self.each):
            torch.matmul(self.a, self.b)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
