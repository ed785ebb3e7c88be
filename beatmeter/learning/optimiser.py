"""The optimiser of a run and its learning rates over time."""

from __future__ import annotations

import math

import torch

from beatmeter.learning.model import Model
from beatmeter.settings import RunConfig
from beatmeter.tasks.heads import mix_parameters, own_parameters


def optimiser_for(model: Model, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with one group each for the head, the layer mix (own rate, no decay) and what the source
    trains."""
    t = config.training
    mix = mix_parameters(model.head)
    groups = [
        {
            "params": own_parameters(model.head),
            "name": "head",
            "lr": t.head_lr,
            "weight_decay": t.weight_decay,
        },
        {"params": mix, "name": "mix", "lr": t.mix_lr, "weight_decay": 0.0},
        *({"lr": t.adapter_lr, "weight_decay": t.weight_decay, **g} for g in model.source.parameter_groups()),
    ]
    groups = [g | {"base_lr": g["lr"]} for g in groups if g["params"]]
    return torch.optim.AdamW(groups, fused=model.device.type in ("cpu", "cuda"))


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak learning rate after this share of all steps: a linear rise, then half a cosine to
    zero."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
