"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from kernels import own_kernels
from threadpoolctl import threadpool_limits

from beatmeter.cli import main
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.runtime.config import change
from beatmeter.runtime.cores import usable_cores  # before torch, whose threads then sleep while they wait
from beatmeter.settings import RunConfig

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(own_kernels(os.environ["PYTEST_XDIST_WORKER"])))
threadpool_limits(1, "blas")  # plugins have loaded numpy before beatmeter could say so


# Neither a limit of time for an example nor one for making examples: other programs have the cores too.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# Files that take longest, which begin first: no process is left alone with one at the end.
LONG = (
    "house/test_documents",
    "tasks/test_task_contract",
    "features/test_watch",
    "features/test_engines",
    "learning/test_regimes",
    "features/test_extraction",
    "serving/page/test_page_hears_as_python",
    "runtime/test_distributed",
    "experiments/test_ablation",
    "learning/test_resume",
    "evaluation/test_page",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order of the others stays."""
    order = {f"tests/{name}.py": n for n, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


Typed = Callable[..., tuple[int, str, str]]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """A command as it is typed: exit status, what it printed, what it said on stderr."""

    def type_it(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["beatmeter", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out, said.err

    return type_it


@pytest.fixture(scope="session")
def playing() -> Iterator[Any]:
    """Playwright, which drives a browser that is there already."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def chromium(playing: Any) -> Callable[..., Any]:
    """Starts a browser with switches."""
    given = os.environ.get("BEATMETER_CHROMIUM")
    program = given or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium here: install it, or set BEATMETER_CHROMIUM to one")

    def start(*switches: str) -> Any:
        args = [f"--{switch}" for switch in ("no-sandbox", "mute-audio", *switches)]
        return playing.chromium.launch(executable_path=program, args=args)

    return start


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real music with known meter (BEATMETER_REAL_DATA, else `shared/data` beside the
    repository)."""
    given = os.environ.get("BEATMETER_REAL_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "meter-dev" / "manifest.csv").is_file():
        pytest.skip(
            "no real music here: set BEATMETER_REAL_DATA to a folder that holds meter-dev/manifest.csv"
        )
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips of 7 s: two chunks each, the second aligned to the end; train, val and test."""
    folder = tmp_path_factory.mktemp("music") / "clips"
    synthesise(folder, 48, SynthPlan(seconds=7.0))
    return folder


@pytest.fixture
def config(clips: Path, tmp_path: Path) -> RunConfig:
    """Spectral features with a lag head, quick to train."""
    values = {
        "data": {"path": str(clips)},
        "features": {"backbone": "spectral", "cache": str(tmp_path / "cache"), "window": 2},
        "head": {"poolings": ("stats", "lag"), "channels": 8, "hidden": 16, "dilations": (1, 2)},
        "training": {"epochs": 4, "head_lr": 1e-3, "batch": 4, "accumulation": 2, "patience": 4},
    }
    return change(RunConfig(), values)
