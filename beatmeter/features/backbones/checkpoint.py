"""Checkpoints in the hub's folder format: `config.json`, `preprocessor_config.json`, weights. Nothing in them
is executed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from beatmeter.errors import BackboneError
from beatmeter.features import activations
from beatmeter.features.backbones.base import Identity
from beatmeter.features.backbones.hubert import Hubert, fold_weight_norm
from beatmeter.features.backbones.hubert_config import HubertConfig
from beatmeter.runtime import atomic, regular
from beatmeter.runtime.artifacts import read_json, to_json

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # first found is read
RATES = (1000, 1_000_000)  # Hz, that a network may want
PREFIXES = ("hubert.", "wav2vec2.")  # of the encoder inside a checkpoint with a head
# tensors of pre-training and of heads, which features do not need; any other unknown tensor is an error
HEADS = (
    "masked_spec_embed",
    "lm_head.",
    "final_proj.",
    "label_embs_concat",
    "project_hid.",
    "project_q.",
    "quantizer.",
    "projector.",
    "classifier.",
    "layer_weights",
)


@dataclass(frozen=True)
class Checkpoint:
    """A folder that has been looked at: its settings are read, its weights are not."""

    folder: Path
    config: HubertConfig
    model_type: str
    sample_rate: int | None  # Hz; None when neither JSON file says it
    normalise: bool  # what the checkpoint's preprocessor says; true when it says nothing
    files: tuple[Path, ...]  # weights

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the JSON files of `folder`. Raises BackboneError for what is missing, damaged or not
        supported."""
        values, about = read_settings(folder)
        config = HubertConfig.from_json(values, str(folder / "config.json"))
        rate = about.get("sampling_rate", values.get("sample_rate"))
        return cls(
            folder,
            config,
            str(values.get("model_type", "hubert")),
            rate,
            about.get("do_normalize", True),
            weight_files(folder),
        )

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 of the weight file; of the sorted digests when there are several."""
        return digest_of(self.files)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under their names inside the encoder, weight normalisation folded; mapped from disk,
        not yet read."""
        found: dict[str, Tensor] = {}
        for file in self.files:
            part = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
            self._complain(
                "hold tensors twice:", found.keys() & part.keys()
            )  # which counts would depend on the names of the files
            found |= part
        prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in found)), "")
        found = {name.removeprefix(prefix): value for name, value in found.items()}
        found = {name: value for name, value in found.items() if not name.startswith(HEADS)}
        fold_weight_norm(found, "encoder.pos_conv_embed.")
        return found

    def load(
        self,
        identity: Identity,
        sample_rate: int,
        normalise: bool,
        dtype: torch.dtype,
        depth: int | None = None,
    ) -> Hubert:
        """The encoder with these weights, frozen and in evaluation mode; layers after `depth` are not kept.

        Raises BackboneError for tensors that are missing, unknown, of the wrong shape or not finite.
        """
        model = self.outline(identity, sample_rate, normalise)
        wanted, found = model.state_dict(), self.tensors()
        self._complain("lacks", wanted.keys() - found.keys())
        self._complain("holds tensors of another network:", found.keys() - wanted.keys())
        shapes = {
            f"{n} {tuple(found[n].shape)} for {tuple(wanted[n].shape)}"
            for n in wanted
            if found[n].shape != wanted[n].shape
        }
        self._complain("does not fit its config.json:", shapes)
        if depth is not None:
            model.keep(depth)
        state = {name: found[name].to(dtype, copy=True).contiguous() for name in model.state_dict()}
        self._complain(
            "has values that are not finite in",
            (n for n, value in state.items() if not bool(value.sum(dtype=torch.float32).isfinite())),
        )
        model.load_state_dict(state, assign=True)
        return model.requires_grad_(False).eval()

    def outline(self, identity: Identity, sample_rate: int, normalise: bool) -> Hubert:
        """The encoder without its weights: every attribute is there, `forward` is not possible."""
        with torch.device("meta"):
            model = Hubert(self.config, identity, sample_rate, normalise).requires_grad_(False).eval()
        beats = self.folder / activations.FILE
        model.beats = beats if beats.is_file() else None
        return model

    def _complain(self, what: str, names: Iterable[str]) -> None:
        listed = sorted(names)
        if listed:
            where = ", ".join(f.name for f in self.files)
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            raise BackboneError(
                f"{self.folder / where} {what} {', '.join(listed[:3])}{more}",
                "The file is incomplete or belongs to another config.json: fetch the folder again.",
            )


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.json` and `preprocessor_config.json`, empty when there is none. Raises BackboneError for
    what cannot be used."""
    path = folder / "config.json"
    if not path.is_file():
        raise BackboneError(
            f"{folder} has no config.json",
            f"A checkpoint folder holds config.json and one of {', '.join(WEIGHTS)}.",
        )
    values = _read_json(path)
    about = folder / "preprocessor_config.json"
    preprocessor = _read_json(about) if about.is_file() else {}
    rate = preprocessor.get("sampling_rate", values.get("sample_rate"))
    normalise = preprocessor.get("do_normalize", True)
    if not (rate is None or (type(rate) is int and RATES[0] <= rate <= RATES[1])) or not isinstance(
        normalise, bool
    ):
        raise BackboneError(
            f"{about}: sampling_rate = {rate!r} or do_normalize = {normalise!r} cannot be used"
        )
    return values, preprocessor


def digest_of(files: Sequence[Path]) -> str:
    """Hex sha256 of the weight file; of the sorted digests when there are several."""
    digests = [_digest(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files of `folder`, the shards of an index one by one. Raises BackboneError when there are
    none."""
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (path,)
        shards = _read_json(path).get("weight_map")
        if (
            not isinstance(shards, dict)
            or not all(isinstance(s, str) and Path(s).name == s for s in shards.values())
            or not shards
        ):
            raise BackboneError(f"{path} has no weight_map of file names", "Fetch the folder again.")
        files = tuple(folder / shard for shard in sorted(set(shards.values())))
        missing = [f.name for f in files if not f.is_file()]
        if missing:
            raise BackboneError(
                f"{folder} lacks {', '.join(missing)}, named in {name}", "Fetch the folder again."
            )
        return files
    raise BackboneError(
        f"{folder} has no weights",
        f"One of {', '.join(WEIGHTS)} is needed; fairseq checkpoints (*_fairseq.pt) are not read.",
    )


def write_folder(
    model: Hubert,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    beats: activations.BeatActivations | None = None,
) -> None:
    """Write `model` in the hub's format, weights as safetensors, so that transformers' HubertModel reads it
    too; with the activations of beats that belong to it, if any, in a file beside."""
    config = {"model_type": "hubert", "architectures": ["HubertModel"], **dataclasses.asdict(model.config)}
    config |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False, "layerdrop": 0.0}
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_value": 0.0,
    }
    preprocessor |= {"sampling_rate": model.sample_rate, "do_normalize": model.normalise}
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    kernel = tensors.pop("encoder.pos_conv_embed.conv.weight")
    tensors["encoder.pos_conv_embed.conv.weight_g"] = kernel.float().norm(dim=(0, 1), keepdim=True)
    tensors["encoder.pos_conv_embed.conv.weight_v"] = kernel
    atomic.write_bytes(
        folder / "model.safetensors",
        save({n: v.to(dtype).contiguous() for n, v in tensors.items()}, {"format": "pt"}),
    )
    if beats is None:
        (folder / activations.FILE).unlink(missing_ok=True)
    else:
        beats.write(folder / activations.FILE)
    atomic.write_text(folder / "preprocessor_config.json", to_json(preprocessor, 2) + "\n")
    atomic.write_text(folder / "config.json", to_json(config, 2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path, BackboneError, "Fetch the folder again.")


@lru_cache(maxsize=8)
def _digest(path: str, size: int, changed: int) -> str:
    """Hex sha256 of a file, once per version of it."""
    with os.fdopen(regular.open_handle(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(f"{path} is not a whole safetensors file: {error}", "Fetch it again.") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """A `torch.save`d state dict, tensors only: a pickle that asks for anything else is refused, never
    run."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "Unsupported" in reason or "GLOBAL" in reason:
            raise BackboneError(
                f"{path} holds more than tensors and was refused: loading it could run code "
                f"({_reason(reason)})",
                "Use a checkpoint of plain tensors, best as safetensors.",
            ) from None
        raise BackboneError(
            f"{path} cannot be read as weights: {_reason(reason)}",
            "It is truncated or damaged: fetch it again.",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"{path} cannot be read as weights: {_reason(str(error))}",
            "It is truncated or damaged: fetch it again.",
        ) from None
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise BackboneError(
            f"{path} is not a state dict of tensors by name", "Use the checkpoint as the hub gives it."
        )
    return found


def _reason(text: str) -> str:
    """The telling line of PyTorch's long explanations."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = (
        [line for line in lines if "GLOBAL" in line or "Unsupported" in line] or lines or ["no reason given"]
    )
    return telling[-1].split(". Please")[0][:200]
