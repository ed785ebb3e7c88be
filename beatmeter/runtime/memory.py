"""How much memory a device has left, before something large is put into it; mapped memory given back."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beatmeter.runtime.cores import control_groups, lines

_NEW = ("memory.max", "memory.current", "inactive_file")  # names in cgroup v2, and in v1
_OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(device: torch.device) -> int:
    """Bytes that can be taken without pushing anything out: of the machine and its control group, or of the
    GPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_machine(), _group())


def _machine() -> int:
    for line in lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62  # not Linux: nothing is known, nothing is refused


def _group() -> int:
    """What the limits of this process's control groups (containers, batch systems) leave, cache that can go
    counted as free."""
    left = 1 << 62
    for folder, unified in control_groups("memory"):
        names = _NEW if unified else _OLD
        limit, used = (_number(folder / name) for name in names[:2])
        if limit is not None and used is not None:
            idle = next(
                (
                    int(row.split()[1])
                    for row in lines(folder / "memory.stat")
                    if row.startswith(f"{names[2]} ")
                ),
                0,
            )
            left = min(left, limit - used + idle)
    return max(left, 0)


def _number(path: Path) -> int | None:
    text = "".join(lines(path)).strip()
    return int(text) if text.isdigit() else None


def release(array: np.ndarray) -> None:
    """Give the memory of a mapped file back, which the system keeps as its cache anyway: a search touches a
    few rows everywhere."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
