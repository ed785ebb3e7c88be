"""No test here cuts the power, so none needs to wait for the disk; `test_durability.py` checks that the store
does."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__ != "test_durability":
        monkeypatch.setattr(os, "fsync", lambda handle: None)
        monkeypatch.setattr("beatmeter.store.folder._FULL_SYNC", None)
