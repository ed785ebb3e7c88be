"""Extraction by many processes: any engine fills the store as one process does, also when workers are
killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.datasets import open_dataset
from beatmeter.errors import ConfigError, EngineError
from beatmeter.features.engines import Engine, open_engine, spread, work
from beatmeter.features.engines.base import R, T
from beatmeter.features.engines.spreading import order_for
from beatmeter.features.service import FeatureService
from beatmeter.runtime.config import change
from beatmeter.runtime.parallel import Crash
from beatmeter.schema import Track
from beatmeter.settings import DataConfig, FeatureConfig, TaskConfig
from beatmeter.store import Store
from beatmeter.store.verify import verify

CPU = torch.device("cpu")
FULL = bool(int(os.environ.get("BEATMETER_FULL", "0")))
ALL = ("local", "dask", "ray")
MODULES = {"dask": "distributed", "ray": "ray"}


def quiet(text: str) -> None:
    """Nobody reads it."""


def service_in(cache: Path) -> FeatureService:
    return FeatureService(
        FeatureConfig(cache=str(cache), backbone="embedded", window=2, layers="1-2", dtype="float32"), CPU
    )


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Track, ...]:
    """40 short clips, a copy, and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(3)
    for i in range(40):
        soundfile.write(
            folder / f"{i:02}.wav", 0.1 * rng.standard_normal(rng.integers(24_000, 60_000)), 24_000
        )
    (folder / "07 again.wav").write_bytes((folder / "07.wav").read_bytes())
    (folder / "text.mp3").write_text("this is no music")
    return open_dataset(folder, DataConfig(), TaskConfig().meters, labelled=False).tracks


@pytest.fixture(scope="module")
def alone(tracks: Sequence[Track], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What one process makes of them."""
    store, _, failed = service_in(tmp_path_factory.mktemp("alone")).ensure(tracks, report=quiet)
    assert list(failed) == ["text.mp3"]
    return store


def require_same(store: Store, wanted: Store) -> None:
    assert verify(store.path, full=True).sound
    assert store.spec == wanted.spec
    assert store.keys() == wanted.keys()
    assert {k: f.reason for k, f in store.failures().items()} == {
        k: f.reason for k, f in wanted.failures().items()
    }
    one, two = store.snapshot(), wanted.snapshot()
    for key in wanted.keys():  # noqa: SIM118
        for name, rows in two.read(key).pooled.items():
            assert one.read(key).pooled[name].values.tobytes() == rows.values.tobytes()


@pytest.fixture(scope="module", params=ALL)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Two workers on this machine."""
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param], reason=f"pip install 'beatmeter[{request.param}]'")
    with open_engine(request.param, 2) as started:
        yield started


def kill_first(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kill the first worker that reports, while it is at its next task: its process."""
    killed: list[int] = []
    run = engine.run

    def disturbed(function: Any, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for item, report in run(function, items):
            if not killed:
                killed.append(int(report.worker.rpartition(":")[2]))
                os.kill(killed[0], signal.SIGKILL)
            yield item, report

    monkeypatch.setattr(engine, "run", disturbed)
    return killed


@pytest.mark.parametrize("engine", ALL if FULL else ALL[:2], indirect=True)
def test_two_workers_one_of_them_killed_fill_the_store_as_one_process_does(
    engine: Engine, tracks: Sequence[Track], alone: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = kill_first(engine, monkeypatch)
    outcome = spread(service_in(tmp_path), tracks, engine, "cpu")
    assert killed
    assert killed[0] != os.getpid()
    assert len(outcome.workers) >= 2
    assert list(outcome.failed) == ["text.mp3"]
    require_same(outcome.store, alone)


def test_what_kills_its_process_comes_back_as_a_crash_and_the_rest_is_done(engine: Engine) -> None:
    def square(n: int) -> int:
        import os  # this function travels by value: workers cannot import tests

        if n == 3:
            os._exit(1)
        return n * n

    assert engine.slots == 2
    results = dict(engine.run(square, range(12)))
    assert set(results) == set(range(12))
    assert results[3] == Crash()
    done = {
        n: r for n, r in results.items() if r != Crash()
    }  # what waited for the same worker may be suspected too
    assert len(done) >= 8
    assert done == {n: n * n for n in done}


def test_workers_wait_passively(engine: Engine) -> None:
    def policy(_: int) -> str | None:
        import os

        return os.environ.get("OMP_WAIT_POLICY")

    assert [found for _, found in engine.run(policy, [0])] == [os.environ["OMP_WAIT_POLICY"]]


class Fragile(Engine):
    """Works here, and loses every batch with one of some tracks in it, and the batch after that."""

    name = "fragile"

    def __init__(self, deadly: set[str]) -> None:
        super().__init__(1)
        self.deadly, self.lost = deadly, 0

    def __enter__(self) -> Fragile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was started."""

    @property
    def slots(self) -> int:
        return 1

    def run(self, function: Any, items: Sequence[T]) -> Iterator[tuple[T, R | Crash]]:
        dies = [any(track.id in self.deadly for track in item) for item in items]  # type: ignore[attr-defined]
        for i, item in enumerate(items):
            suspected = dies[i] or (i > 0 and dies[i - 1])  # its neighbour is blamed with it
            self.lost += suspected
            yield item, Crash() if suspected else function(item)


def test_a_file_that_takes_its_worker_down_is_found_and_listed(
    tracks: Sequence[Track], alone: Store, tmp_path: Path
) -> None:
    engine = Fragile({"05.wav", "31.wav"})
    outcome = spread(service_in(tmp_path), tracks, engine, "cpu")
    assert sorted(outcome.failed) == ["05.wav", "31.wav", "text.mp3"]
    assert "worker died" in outcome.failed["05.wav"]
    assert engine.lost <= 24  # halves, not one by one
    assert len(outcome.store.keys()) == 38
    assert len(outcome.store.failures()) == 3
    later = spread(service_in(tmp_path), tracks, Fragile(set()), "cpu")
    assert (later.done, later.present, sorted(later.failed)) == (0, 39, ["05.wav", "31.wav", "text.mp3"])
    assert "39 were present" in later.lines()[0]
    mended = spread(service_in(tmp_path), tracks, Fragile(set()), "cpu", retry_failed=True)
    assert sorted(mended.failed) == ["text.mp3"]
    require_same(mended.store, alone)


def test_workers_that_all_die_are_not_the_fault_of_the_files(tracks: Sequence[Track], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="before they have done anything"):
        spread(service_in(tmp_path), tracks, Fragile({t.id for t in tracks}), "cpu")
    assert service_in(tmp_path).store().failures() == {}


def test_trouble_of_the_store_stops_everything_and_names_the_worker(
    tracks: Sequence[Track], tmp_path: Path
) -> None:
    service = service_in(tmp_path)
    order = order_for(service, service.store(), Fragile(set()), "cpu", False)
    other = change(order.features, {"layers": "1"})
    report = work(type(order)(other, order.where, order.spec), tuple(tracks[:1]))
    assert report.trouble is not None
    assert "would make other features" in report.trouble[0]

    class Broken(Fragile):
        def run(self, function: Any, items: Sequence[T]) -> Iterator[tuple[T, Any]]:
            yield items[0], report

    with pytest.raises(EngineError, match=r"worker .*would make other features.*same version"):
        spread(service, tracks, Broken(set()), "cpu")


@pytest.mark.parametrize(
    ("name", "workers", "scheduler", "words"),
    [
        ("spark", 0, None, "Known: local, dask, ray"),
        ("local", 0, "tcp://x:1", "--engine dask or ray"),
        ("dask", 2, "tcp://x:1", "Give one of them"),
    ],
)
def test_what_contradicts_itself_is_refused(
    name: str, workers: int, scheduler: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        open_engine(name, workers, scheduler)


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    with pytest.raises(EngineError, match=rf"pip install 'beatmeter\[{name}\]'"):
        open_engine(name)


@pytest.mark.parametrize(
    ("name", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "127.0.0.1:9"), ("ray", "ray://127.0.0.1:9")]
)
def test_a_scheduler_that_is_not_there_is_named_soon(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(MODULES[name], reason=f"pip install 'beatmeter[{name}]'")
    monkeypatch.setattr(f"beatmeter.features.engines.{name}._CONNECT", 0.5)
    with (
        pytest.raises(EngineError, match=rf"no {name.title()} .*answers at {address}"),
        open_engine(name, scheduler=address),
    ):
        pass


@pytest.mark.parametrize("fault", ["connect", "workers"])
def test_a_cluster_of_our_own_is_ended_when_it_does_not_start(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="pip install 'beatmeter[dask]'")
    from beatmeter.features.engines import dask

    closed: list[str] = []

    class Cluster:
        def __init__(self, **options: object) -> None:
            """Nothing is started."""

        def __enter__(self) -> Cluster:
            return self

        def __exit__(self, *_: object) -> None:
            closed.append("cluster")

    class Client:
        def __init__(self, where: object, **options: object) -> None:
            if fault == "connect":
                raise TimeoutError("too late")

        def wait_for_workers(self, number: int, timeout: float) -> None:
            raise TimeoutError("none")

        def close(self) -> None:
            closed.append("client")

    monkeypatch.setattr(dask, "LocalCluster", Cluster)
    monkeypatch.setattr(dask, "Client", Client)
    with pytest.raises(EngineError, match="this machine"), open_engine("dask", 1):
        pass
    assert closed == (["client"] if fault == "workers" else []) + ["cluster"]


def test_the_command_uses_a_cluster_that_is_there(
    tracks: Sequence[Track], alone: Store, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="pip install 'beatmeter[dask]'")
    options = [
        "--set",
        "features.backbone=embedded",
        "--set",
        "features.window=2",
        "--set",
        "features.dtype=float32",
        "--layers",
        "1-2",
    ]
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        command = [
            "extract",
            str(tracks[0].path.parent),
            *options,
            "--device",
            "cpu",
            "--cache",
            str(tmp_path),
        ]
        done = CliRunner().invoke(
            cli, [*command, "--engine", "dask", "--scheduler", cluster.scheduler_address]
        )
    assert done.exit_code == 1, done.output
    assert "41 of 42 tracks have features" in done.output
    require_same(service_in(tmp_path).store(), alone)
