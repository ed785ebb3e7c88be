"""The backbones that come with the package: MERT's architecture in small, for machines that are offline or
without a licence.

24 kHz, 75 frames a second, pre-LN, six layers of width 128. `embedded` learned from ordinary music,
`embedded-hard` went on from it over music that is hard to hear. When the folder of that name in `models`
holds trained weights (the hub's folder format), they are used. Until then the weights come from a fixed seed,
the same on every machine, and `identity.trained` is False: say so wherever results are shown.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from beatmeter.features.backbones.base import Identity
from beatmeter.features.backbones.checkpoint import Checkpoint
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.hubert_config import HubertConfig
from beatmeter.settings import EMBEDDED

MODELS = Path(__file__).resolve().parents[2] / "models"
LICENCE = "MIT"
SAMPLE_RATE = 24_000
EMBEDDED_CONFIG = HubertConfig(
    hidden_size=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=512,
    conv_dim=(64,) * 7,
    do_stable_layer_norm=True,
    # synthesised music never repeats, and dropout inside attention costs half of a training step
    hidden_dropout=0.0,
    activation_dropout=0.0,
    attention_dropout=0.0,
)


def load(
    normalise: Literal["auto", "yes", "no"] = "auto",
    dtype: torch.dtype = torch.float32,
    depth: int | None = None,
    weights: bool = True,
    name: str = EMBEDDED,
) -> Hubert:
    """The embedded backbone of this name, frozen, in evaluation mode; other arguments as of
    `beatmeter.features.backbones.mert.load`."""
    if (MODELS / name / "config.json").is_file():
        checkpoint = Checkpoint.open(MODELS / name)
        identity = Identity(name, checkpoint.sha256[:12], checkpoint.sha256, LICENCE)
        normal = checkpoint.normalise if normalise == "auto" else normalise == "yes"
        rate = checkpoint.sample_rate or SAMPLE_RATE
        return (
            checkpoint.load(identity, rate, normal, dtype, depth)
            if weights
            else checkpoint.outline(identity, rate, normal)
        )
    return untrained(normalise, dtype, depth)


def untrained(
    normalise: Literal["auto", "yes", "no"] = "auto",
    dtype: torch.dtype = torch.float32,
    depth: int | None = None,
) -> Hubert:
    """The weights of seed 0, frozen, in evaluation mode: the untrained baseline."""
    model = fresh().requires_grad_(False).eval().to(dtype)
    model.normalise = normalise != "no"
    if depth is not None:
        model.keep(depth)
    return model


def fresh(seed: int = 0) -> Hubert:
    """Untrained weights from `seed`, ready to train: uniform numbers only, which are the same on every
    machine."""
    identity = Identity(EMBEDDED, f"seed-{seed}", "", LICENCE, trained=False)
    with torch.device("meta"):
        model = Hubert(EMBEDDED_CONFIG, identity, SAMPLE_RATE, normalise=True)
    generator = torch.Generator().manual_seed(seed)
    state = {name: _initial(name, value, generator) for name, value in model.state_dict().items()}
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().astype("<f4").tobytes())
    model.load_state_dict(state, assign=True)
    model.identity = Identity(EMBEDDED, f"seed-{seed}", digest.hexdigest(), LICENCE, trained=False)
    return model


def _initial(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Biases 0, norms 1, every other weight with variance 1 / fan-in (2 / fan-in before a GELU in the conv
    stack)."""
    if like.ndim == 1:
        return torch.zeros(like.shape) if name.endswith("bias") else torch.ones(like.shape)
    gain = 2.0 if name.startswith("feature_extractor") else 1.0
    reach = math.sqrt(3 * gain / like[0].numel())  # of a uniform distribution with that variance
    return (torch.rand(like.shape, generator=generator) * 2 - 1) * reach
