"""One export of the smallest model for all tests of graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatmeter.serving.onnx.export import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "spectral"
    export("spectral-lag", out, report=lambda line: None)
    return out
