"""What LoRA training is measured against: the loop that most people write with transformers and peft, in
float32, decoding with librosa every time, one chunk after the other, all hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import librosa
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import HubertModel

from beatmeter.audio.chunking import chunk_starts
from beatmeter.schema import ChunkSpec
from beatmeter.settings import RunConfig

CHUNK = ChunkSpec()


class PlainLora(nn.Module):
    """A transformers model with peft's LoRA, mean and maximum of every layer, a softmax layer mix and a small
    head."""

    def __init__(self, model: HubertModel, config: RunConfig, classes: int) -> None:
        super().__init__()
        a = config.adapter
        self.model = get_peft_model(
            model,
            LoraConfig(r=a.r, lora_alpha=a.alpha, lora_dropout=a.dropout, target_modules=list(a.targets)),
        )
        dim, layers = model.config.hidden_size, model.config.num_hidden_layers
        self.mix = nn.Parameter(torch.zeros(layers))
        self.head = nn.Sequential(
            nn.LayerNorm(2 * dim),
            nn.Linear(2 * dim, config.head.hidden),
            nn.GELU(),
            nn.Dropout(config.head.dropout),
            nn.Linear(config.head.hidden, classes),
        )
        self.to(model.device)
        trained = [p for p in self.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            trained, config.training.head_lr, weight_decay=config.training.weight_decay
        )
        self.clip = config.training.clip

    def features(self, path: Path) -> torch.Tensor:
        """(layer, 2, dim) of one file."""
        wave, _ = librosa.load(path, sr=CHUNK.sample_rate, mono=True)
        rows = []
        for start in chunk_starts(len(wave), CHUNK):
            chunk = torch.from_numpy(wave[start : start + CHUNK.length])
            chunk = (chunk - chunk.mean()) / torch.sqrt(chunk.var(correction=0) + 1e-7)
            out = self.model(chunk[None].to(self.mix.device), output_hidden_states=True)
            states = [*out.hidden_states[1:-1], out.last_hidden_state]
            rows.append(torch.stack([torch.stack([s[0].mean(0), s[0].amax(0)]) for s in states]))
        many = torch.stack(rows)
        return torch.stack([many[:, :, 0].mean(0), many[:, :, 1].amax(0)], dim=1)

    def step(self, paths: Sequence[Path], targets: torch.Tensor) -> float:
        """One step of the optimiser over these files; the mean loss."""
        self.train()
        self.optimiser.zero_grad()
        total = 0.0
        for path, target in zip(paths, targets, strict=True):
            mixed = torch.einsum("l,lpd->pd", self.mix.softmax(0), self.features(path))
            loss = nn.functional.binary_cross_entropy_with_logits(
                self.head(mixed.flatten()[None])[0], target
            ) / len(paths)
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        self.optimiser.step()
        return total
