"""Which device computes, and which precision is fast on it."""

from __future__ import annotations

from pathlib import Path

import torch

from beatmeter.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes a CUDA device when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}", "Use auto, cpu, cuda or cuda:0.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for and no CUDA device is here", "Use --device cpu.")
    return device


def fast_dtype(device: torch.device) -> str:
    """`bfloat16` where the device multiplies it at full speed (AVX512-BF16, AMX, GPUs since Ampere), else
    `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
