"""One export of the smallest model for all tests of graphs."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from beatmeter.serving.onnx.export import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Made by the first process of a parallel run that asks, and read by all."""
    shared = (
        tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    )
    out = shared / "spectral-onnx"
    with (shared / "spectral-onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            export("spectral-lag", out, report=lambda line: None)
    return out
