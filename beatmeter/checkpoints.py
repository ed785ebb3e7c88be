"""Checkpoints: one safetensors file each, whole or absent, with everything needed to go on as JSON in its header.

No pickle is written or read. The same JSON lies beside the file for people and other programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from beatmeter import atomic
from beatmeter.errors import RunError

FORMAT = 1


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `tensors` and `about` (plain JSON) to `path` in one atomic step, and `about` once more to `path`.json."""
    text = json.dumps({"format": FORMAT, **about}, indent=1, sort_keys=True)
    data = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, metadata={"beatmeter": text})
    atomic.write_bytes(path, data)
    atomic.write_text(path.with_suffix(".json"), text + "\n")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote. Raises RunError when the file is absent, damaged or of another program."""
    if not path.exists():
        raise RunError(f"there is no checkpoint {path}", "Train first, or name another run folder.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["beatmeter"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is not a readable beatmeter checkpoint: {error}", "Use another checkpoint of the run, or train again.") from error
    if about.get("format") != FORMAT:
        raise RunError(
            f"{path} has checkpoint format {about.get('format')}, this version reads {FORMAT}", "Use the version that wrote it, or train again."
        )
    return tensors, about


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as flat tensors, `optimiser.<parameter>.<moment>`."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{name}": torch.as_tensor(value) for i, moments in state.items() for name, value in moments.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave; the groups and rates come from the settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
