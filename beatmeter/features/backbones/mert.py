"""MERT and other checkpoints: by hub id, or from a local folder in the hub's format.

MERT's weights are licensed CC-BY-NC-4.0: research only, no commercial use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import hub
from beatmeter.features.backbones.base import Identity
from beatmeter.features.backbones.checkpoint import Checkpoint, read_settings
from beatmeter.features.backbones.hubert_config import FAMILY
from beatmeter.settings import MERT_95M, MERT_330M

if TYPE_CHECKING:
    from beatmeter.features.backbones.automodel import TransformersBackbone, TransformersCheckpoint
    from beatmeter.features.backbones.hubert import Hubert

MERT_LICENCE = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class Known:
    """What is known of a published checkpoint. An empty `revision` takes the hub's main branch; the commit is
    recorded."""

    revision: str = ""
    sha256: str = ""
    sample_rate: int = 24_000


KNOWN = {
    MERT_330M: Known(),
    MERT_95M: Known(
        "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
        "a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd",
    ),
}


def open_checkpoint(folder: Path) -> Checkpoint | TransformersCheckpoint:
    """The checkpoint in `folder`: of our own encoder where its architecture is that of HuBERT, of
    transformers' where it is another."""
    values, _ = read_settings(folder)
    if values.get("model_type", "hubert") in FAMILY:
        return Checkpoint.open(folder)
    from beatmeter.features.backbones.automodel import TransformersCheckpoint

    return TransformersCheckpoint.open(folder)


def load(
    name: str,
    revision: str = "",
    normalise: Literal["auto", "yes", "no"] = "auto",
    dtype: torch.dtype = torch.float32,
    depth: int | None = None,
    weights: bool = True,
) -> Hubert | TransformersBackbone:
    """The checkpoint `name`, frozen, in evaluation mode; without `weights` only its outline
    (`Checkpoint.outline`).

    `normalise="auto"` does what the checkpoint's preprocessor says. Layers after `depth` are not kept. Raises
    BackboneError for what cannot be fetched, read or trusted.
    """
    path = Path(name).expanduser()
    known = KNOWN.get(name, Known(sample_rate=0))
    if path.is_dir():
        checkpoint = open_checkpoint(path)
        pinned = next(((n, k) for n, k in KNOWN.items() if k.sha256 and k.sha256 == checkpoint.sha256), None)
        title, commit = (pinned[0], pinned[1].revision) if pinned else (path.resolve().name, "local")
        known = pinned[1] if pinned else known
    else:
        title, wanted = name, revision or known.revision
        folder, commit = hub.fetch(name, wanted)
        checkpoint = open_checkpoint(folder)
        if known.sha256 and wanted == known.revision and checkpoint.sha256 != known.sha256:
            raise BackboneError(
                f"the weights of {name} in {folder} have sha256 {checkpoint.sha256}, not the published "
                f"{known.sha256}",
                f"The download is damaged: remove {folder} and run `{hub.download_command(name, wanted)}`.",
            )
    rate = checkpoint.sample_rate or known.sample_rate
    if not rate:
        raise BackboneError(
            f"{checkpoint.folder} does not say its sample rate",
            'Add preprocessor_config.json with {"sampling_rate": ...} (Hz).',
        )
    licence = (
        MERT_LICENCE
        if name in KNOWN or checkpoint.model_type == "mert_model"
        else "see the checkpoint's model card"
    )
    identity = Identity(title, commit, checkpoint.sha256, licence)
    normal = checkpoint.normalise if normalise == "auto" else normalise == "yes"
    if not weights:
        return checkpoint.outline(identity, rate, normal)
    return checkpoint.load(identity, rate, normal, dtype, depth)
