"""Checkpoints: one safetensors file each, whole or absent, with everything needed to go on as JSON in its
header.

No pickle is written or read. The same JSON lies beside the file for people and other programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from beatmeter.errors import RunError
from beatmeter.runtime import artifacts, atomic

FORMAT = 1
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # of AdamW, for every parameter
HINT = "Use another checkpoint of the run, or train again."


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `tensors` and `about` (plain JSON) to `path` in one atomic step, and `about` once more to
    `path`.json.

    Raises RunError for tensors that are not finite: the file that is there stays.
    """
    text = artifacts.to_json({"format": FORMAT, **about}, sort_keys=True)
    artifacts.require_finite(
        tensors, f"nothing was written to {path}", RunError, "Training diverged: lower the learning rates."
    )
    data = save(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
        metadata={"beatmeter": text},
    )
    atomic.write_bytes(path, data)
    atomic.write_text(path.with_suffix(".json"), text + "\n")


def handed_on(path: Path, half: str = "") -> bytes:
    """The content of a checkpoint as others get it: it does not say where the run was begun. Tensors under
    the prefix `half`, if any, are float16, which is half the size; they are float32 again once they are
    read."""
    tensors, about = read(path)
    about.pop("places", None)
    if half:
        tensors = {
            name: t.half() if name.startswith(half) and t.dtype == torch.float32 else t
            for name, t in tensors.items()
        }
        artifacts.require_finite(tensors, f"{path} cannot be halved", RunError, "Hand it on as it is.")
    return save(tensors, metadata={"beatmeter": artifacts.to_json(about, sort_keys=True)})


def read(path: Path, shape: Mapping[str, Any] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote. Raises RunError when the file is absent, damaged, of another program, holds a
    tensor that is not finite, or says of itself what has not this `shape` (of `artifacts.require`)."""
    if not os.path.lexists(path):
        raise RunError(f"there is no checkpoint {path}", "Train first, or name another run folder.")
    tensors, texts = artifacts.read_tensors(path, RunError, HINT)
    if "beatmeter" not in texts:
        raise RunError(f"{path} is no checkpoint of beatmeter: its header says nothing of it", HINT)
    about = artifacts.parse_json(texts["beatmeter"], f"the header of {path}", RunError, HINT)
    if about.get("format") != FORMAT:
        raise RunError(
            f"{path} has checkpoint format {about.get('format')}, this version reads {FORMAT}",
            "Use the version that wrote it, or train again.",
        )
    artifacts.require(about, shape or {}, f"the header of {path}", RunError, HINT)
    return tensors, about


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as flat tensors, `optimiser.<parameter>.<moment>`."""
    state = optimiser.state_dict()["state"]
    return {
        f"optimiser.{i}.{name}": torch.as_tensor(value)
        for i, moments in state.items()
        for name, value in moments.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave; the groups and rates come from the settings. Raises RunError
    for moments that are not of these parameters."""
    shapes = [tuple(p.shape) for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, i, name = [*key.split(".", 2), ""][:3]
            if (
                not i.isdecimal()
                or int(i) >= len(shapes)
                or name not in MOMENTS
                or tuple(value.shape) not in ((), shapes[int(i)])
            ):
                raise RunError(
                    f"the optimiser's moment {key} of shape {tuple(value.shape)} is not of these parameters",
                    HINT,
                )
            state.setdefault(int(i), {})[name] = value
    broken = sorted(i for i, moments in state.items() if set(moments) != MOMENTS)
    if broken:
        raise RunError(f"the optimiser's moments of parameter {broken[0]} are not complete", HINT)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
