"""Backbones: audio chunks to layer states. `load_backbone` makes one from its name; nothing heavy is imported
before that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from beatmeter.errors import BackboneError, nearest
from beatmeter.settings import EMBEDDED, EMBEDDED_HARD, MERT_95M, MERT_330M, SPECTRAL, UNTRAINED

if TYPE_CHECKING:
    from beatmeter.features.backbones.base import Backbone

NAMES = (MERT_330M, MERT_95M, EMBEDDED, EMBEDDED_HARD, UNTRAINED, SPECTRAL)
DTYPES = ("float32", "bfloat16")

Normalise = Literal["auto", "yes", "no"]


def load_backbone(
    name: str,
    revision: str = "",
    normalise: Normalise = "auto",
    dtype: str = "float32",
    depth: int | None = None,
    weights: bool = True,
) -> Backbone:
    """The backbone `name`: a known name, a hub id `owner/model` of the HuBERT family, or a folder in the
    hub's format.

    Frozen, in evaluation mode, on the CPU. `revision` pins a hub commit, `normalise` overrides what the
    checkpoint says of its input, `dtype` is float32 or bfloat16, layers after `depth` are not kept in memory.
    With `weights=False` only the outline: all attributes, `identity` and `lag_pooling()` are there at little
    cost, `forward` is not possible. Raises BackboneError for unknown names and for weights that cannot be
    fetched or read.
    """
    import torch

    if dtype not in DTYPES:
        raise BackboneError(f"backbones compute in {' or '.join(DTYPES)}, not in {dtype}")
    kind = getattr(torch, dtype)
    folder = Path(name).expanduser().is_dir()
    if revision and (folder or name in (EMBEDDED, EMBEDDED_HARD, UNTRAINED, SPECTRAL)):
        raise BackboneError(
            f"{name} has no revisions, {revision!r} was asked for", "Leave features.revision empty."
        )
    if name == SPECTRAL:
        if normalise == "yes":
            raise BackboneError(
                "the spectral backbone takes audio as it is", "Leave features.normalise at auto."
            )
        from beatmeter.features.backbones.spectral import SpectralBackbone

        return SpectralBackbone().eval()
    if name in (EMBEDDED, EMBEDDED_HARD, UNTRAINED):
        from beatmeter.features.backbones import embedded

        return (
            embedded.untrained(normalise, kind, depth)
            if name == UNTRAINED
            else embedded.load(normalise, kind, depth, weights, name)
        )
    owner, slash, model = name.partition("/")
    if folder or (slash and owner not in ("", ".", "..", "~") and model and "/" not in model):
        from beatmeter.features.backbones import mert

        return mert.load(name, revision, normalise, kind, depth, weights)
    if slash:
        raise BackboneError(
            f"there is no folder {name!r}",
            "features.backbone is a known name, a hub id or a folder in the hub's format.",
        )
    raise BackboneError(
        f"unknown backbone {name!r}",
        f"{nearest(name, NAMES)} A hub id or a folder in the hub's format works too.",
    )
