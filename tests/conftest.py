"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beatmeter.cores import usable_cores  # before torch, whose threads then sleep while they wait

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real music with known meter (BEATMETER_REAL_DATA, else `shared/data` beside the repository)."""
    given = os.environ.get("BEATMETER_REAL_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "meter-dev" / "manifest.csv").is_file():
        pytest.skip("no real music here: set BEATMETER_REAL_DATA to a folder that holds meter-dev/manifest.csv")
    return folder
