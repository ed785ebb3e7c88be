"""The watcher: complete files only, every one of them, through restarts, broken files and a full disk; clean
on SIGTERM."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import objectserver
import pytest
import torch
from click.testing import CliRunner
from hubfolders import write_hub_folder
from waiting import PATIENCE, until
from watch_samples import Day, clip

from beatmeter.audio.ahead import decode_or_count
from beatmeter.cli import cli
from beatmeter.errors import BackboneError, ConfigError, DataError, EngineError, StoreError, shown
from beatmeter.features.extraction import Shard
from beatmeter.features.service import FeatureService, Filled, Filling
from beatmeter.features.watch import status as status_module
from beatmeter.features.watch.arrivals import Arrivals
from beatmeter.features.watch.log import LOG, logging_to
from beatmeter.features.watch.status import Status, StatusFile
from beatmeter.features.watch.watcher import Watcher
from beatmeter.settings import FeatureConfig
from beatmeter.store import Store
from beatmeter.store.verify import verify

SPECTRAL = ["--set", "features.backbone=spectral", "--set", "features.window=2", "--device", "cpu"]
SETTLE = 0.3
FAST = ["--settle", str(SETTLE), "--interval", "0.05"]
FULL = int(os.environ.get("BEATMETER_FULL", "0"))


def heed_interrupts() -> None:
    """A test run that was started in the background ignores Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Running:
    """`beatmeter extract --watch` in a process of its own."""

    def __init__(self, folder: Path, cache: Path, *options: str, **environment: str) -> None:
        self.cache = cache
        self.said = cache.with_name(
            f"said-{secrets.token_hex(4)}.txt"
        )  # a pipe that nobody reads fills up in a long day, and stops it
        command = [
            sys.executable,
            "-m",
            "beatmeter",
            "extract",
            "--watch",
            str(folder),
            "--cache",
            str(cache),
            *SPECTRAL,
            *FAST,
            *options,
        ]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                process_group=0,
                preexec_fn=heed_interrupts,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready: watching"), (line, self.end())

    @property
    def status(self) -> dict[str, Any]:
        (path,) = (self.cache / "watch").glob("*.json")
        value: dict[str, Any] = json.loads(path.read_text())
        return value

    def end(self, number: int = signal.SIGTERM) -> str:
        """What it said on stderr."""
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return self.said.read_text()


def store_in(cache: Path) -> Store:
    (commits,) = cache.glob("*/commits")
    return Store.open(commits.parent)


def keys_of(numbers: set[int]) -> set[str]:
    return {hashlib.sha256(clip(n)).hexdigest() for n in numbers}


def test_a_day_of_arrivals_with_a_restart_and_a_crash_in_the_middle(tmp_path: Path) -> None:
    inbox, cache = tmp_path / "in box", tmp_path / "cache"
    inbox.mkdir()
    day = Day(inbox, 10_000 if FULL else 200, seed=1, settle=SETTLE)
    ends = iter([signal.SIGKILL, signal.SIGTERM])
    third = len(day.left) // 3
    running = Running(inbox, cache)
    while day.arrive():
        time.sleep(0.0005)  # their pace
        if (third and len(day.left) == 2 * third) or len(day.left) == third:
            before = len(store_in(cache).keys())
            number = next(ends, None)
            if number is not None:
                running.end(number)
                assert running.process.returncode == (0 if number == signal.SIGTERM else -number)
                assert len(store_in(cache).keys()) >= before
                running = Running(inbox, cache)
    until(
        lambda: (
            running.status["done"] + running.status["failed"] == day.files()
            and running.status["waiting"] == 0
            and running.status["state"] == "idle"
        )
    )
    last = running.status
    assert (last["failed"], last["done"]) == (len(day.broken), len(day.places))
    running.end()
    assert running.process.returncode == 0
    store = store_in(cache)
    have = set(store.keys())
    assert keys_of(set(day.places.values())) <= have  # every file that is there now
    assert have <= keys_of(day.wanted) | day.paused  # nothing of half a file
    assert verify(store.path, full=True).sound
    alone = FeatureService(
        FeatureConfig(cache=str(tmp_path / "alone"), backbone="spectral", window=2), torch.device("cpu")
    )
    other, wanted, _ = alone.ensure(Arrivals(inbox, 0, Shard()).look(0.0), report=lambda text: None)
    for key in sorted(wanted.values())[:20]:
        for name, rows in other.snapshot().read(key).pooled.items() if key in other else ():
            assert np.array_equal(store.snapshot().read(key).pooled[name].values, rows.values)


def test_sigterm_in_the_middle_commits_what_is_in_flight_and_says_so(tmp_path: Path) -> None:
    inbox, cache = tmp_path / "in", tmp_path / "cache"
    inbox.mkdir()
    for n in range(60):
        (inbox / f"{n}.wav").write_bytes(clip(n) if n else b"nothing")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        running = Running(inbox, cache, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        until(lambda: running.status["state"] == "extracting")
        said = running.end()
        assert manager.recv(100) == b"STOPPING=1"
    assert running.process.returncode == 0
    assert "stopped" in said
    status = running.status
    assert status["state"] == "stopped"
    assert status["done"] == len(store_in(cache).keys())
    assert status["extracted"] == status["done"]
    assert verify(store_in(cache).path, full=True).sound


def test_ctrl_c_as_a_terminal_sends_it_to_all_processes_is_a_clean_end_too(tmp_path: Path) -> None:
    inbox, cache = tmp_path / "in", tmp_path / "cache"
    inbox.mkdir()
    for n in range(200):
        (inbox / f"{n}.wav").write_bytes(clip(n))
    running = Running(inbox, cache)
    until(lambda: running.status["clips_per_second"] > 0)
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.communicate(timeout=PATIENCE)
    said = running.said.read_text()
    assert running.process.returncode == 0, said
    assert "Traceback" not in said
    status = running.status
    assert (status["state"], status["failed"], status["last_error"]) == ("stopped", 0, "")
    assert 0 < status["done"] == len(store_in(cache).keys())


def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    inbox, cache = tmp_path / "in", tmp_path / "cache"
    inbox.mkdir()
    running = Running(inbox, cache)
    pid = running.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(
        pid, resource.RLIMIT_FSIZE, (3_000, hard)
    )  # no file may grow beyond that: what a full disk is like
    for n in range(10):
        (inbox / f"{n}.wav").write_bytes(clip(n))
    until(lambda: "File too large" in running.status["last_error"])
    assert running.status["state"] == "blocked"
    assert "free space" in running.status["last_error"]
    assert len(store_in(cache).keys()) == 0
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    until(lambda: running.status["done"] == 10 and running.status["state"] == "idle")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (3_000, hard))
    (inbox / "late.wav").write_bytes(clip(99))
    until(lambda: running.status["state"] == "blocked")
    said = running.end(signal.SIGINT)
    assert running.process.returncode == 1  # it could not be committed, and will be extracted again
    assert "extracted again" in said
    assert "Traceback" not in said
    assert set(store_in(cache).keys()) == keys_of(set(range(10)))
    assert verify(store_in(cache).path, full=True).sound


def test_info_shows_watchers_and_whether_they_run(tmp_path: Path) -> None:
    inbox, cache = tmp_path / "in", tmp_path / "cache"
    inbox.mkdir()
    (inbox / "a.wav").write_bytes(clip(1))
    (inbox / "b\n.mp3").write_bytes(b"no music")
    running = Running(inbox, cache, "--shard", "1/1")
    until(lambda: running.status["done"] == running.status["failed"] == 1)
    shown = CliRunner().invoke(cli, ["cache", "info", str(cache)])
    assert f"{inbox}: " in shown.output
    assert "1 done, 0 waiting, 1 failed" in shown.output
    assert "last error" in shown.output
    assert f"pid {running.process.pid}" in shown.output
    second = subprocess.run(
        [
            sys.executable,
            "-m",
            "beatmeter",
            "extract",
            "--watch",
            str(inbox),
            "--cache",
            str(cache),
            *SPECTRAL,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert second.returncode == 2
    assert "another process watches" in second.stderr
    running.process.kill()
    running.process.communicate()
    one = store_in(cache)
    assert "NOT RUNNING" in CliRunner().invoke(cli, ["cache", "info", str(one.path)]).output
    (entry,) = json.loads(CliRunner().invoke(cli, ["cache", "info", str(cache), "--json"]).output)
    assert entry["watchers"][0]["pid"] == running.process.pid
    assert entry["watchers"][0]["running"] is False


def test_info_shows_watchers_whose_status_lies_elsewhere(tmp_path: Path) -> None:
    service = FeatureService(
        FeatureConfig(cache=str(tmp_path / "cache"), backbone="spectral", window=2), torch.device("cpu")
    )
    store, elsewhere = service.store(), tmp_path / "status"
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    for folder, where in (
        ("/music", str(tmp_path / "link" / store.path.name)),
        ("/other", "s3://bucket/caches/one"),
    ):
        StatusFile(elsewhere, Status(folder, where)).write()

    def shown(*options: str) -> list[str]:
        (entry,) = json.loads(
            CliRunner().invoke(cli, ["cache", "info", str(tmp_path / "cache"), "--json", *options]).output
        )
        return [w["folder"] for w in entry["watchers"]]

    assert shown() == []
    assert shown("--status", str(elsewhere)) == ["/music"]
    (tmp_path / "cache" / "watch").symlink_to(elsewhere)
    assert shown("--status", str(elsewhere)) == ["/music"]  # once
    assert (
        "/music: starting"
        in CliRunner()
        .invoke(cli, ["cache", "info", str(tmp_path / "cache"), "--status", str(elsewhere)])
        .output
    )
    absent = CliRunner().invoke(
        cli, ["cache", "info", str(tmp_path / "cache"), "--status", str(tmp_path / "absent")]
    )
    assert absent.exit_code == 2


def test_info_shows_watchers_of_a_store_at_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="object stores need obstore: pip install 'beatmeter[cloud]'")
    with objectserver.serving() as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        service = FeatureService(
            FeatureConfig(cache="s3://music/caches", backbone="spectral", window=2), torch.device("cpu")
        )
        store = service.store()
        StatusFile(tmp_path, Status("/music", store.where)).write()
        done = CliRunner().invoke(cli, ["cache", "info", store.where, "--status", str(tmp_path), "--json"])
    (entry,) = json.loads(done.output)
    assert [w["folder"] for w in entry["watchers"]] == ["/music"]


def processes_with(mark: str) -> dict[int, str]:
    """Those with this text in their environment, which children inherit, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
    return found


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="the list of processes is read from /proc"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    "options", [["--watch"], ["--jobs", "2"], ["--jobs", "2", "--workers", "2"]], ids=" ".join
)
def test_no_process_is_left_when_it_is_killed(
    number: signal.Signals, options: list[str], tmp_path: Path
) -> None:
    inbox, mark = tmp_path / "in", secrets.token_hex(16)
    inbox.mkdir()
    for n in range(400):
        (inbox / f"{n}.wav").write_bytes(clip(n))
    command = [
        sys.executable,
        "-m",
        "beatmeter",
        "extract",
        str(inbox),
        "--cache",
        str(tmp_path / "cache"),
        *SPECTRAL,
        *options,
        "--settle",
        "0",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BEATMETER_MARK": mark}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        until(
            lambda: (
                sum("beatmeter.runtime.worker" in line for line in processes_with(mark).values())
                >= (6 if "--workers" in options else 2)
            )
        )
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    try:
        until(lambda: not processes_with(mark))
    finally:
        for pid in processes_with(mark):
            os.kill(pid, signal.SIGKILL)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == (0 if "--watch" in options else 143)
        assert "--watch" in options or "stopped by SIGTERM" in said.splitlines()
        assert "Traceback" not in said


@pytest.fixture
def arrivals(tmp_path: Path) -> tuple[Path, Callable[[float], list[str]]]:
    folder = tmp_path / "music"
    folder.mkdir()
    watched = Arrivals(folder, 2.0, Shard())

    def look(now: float) -> list[str]:
        names = [t.id for t in watched.look(now)]
        for name in names:
            watched.finish(name, good=True)
        return names

    return folder, look


def test_only_what_has_settled_is_complete_and_what_changes_is_new(
    arrivals: tuple[Path, Callable[[float], list[str]]],
) -> None:
    folder, look = arrivals
    (folder / "a.wav").write_bytes(b"1")
    assert look(10.0) == []
    assert look(11.9) == []
    with (folder / "a.wav").open("ab") as file:
        file.write(b"2")
    assert look(12.1) == []
    assert look(14.0) == []
    assert look(14.1) == ["a.wav"]
    assert look(20.0) == []
    (folder / "a.wav").write_bytes(b"34")  # the same length
    os.utime(folder / "a.wav", ns=(0, 12345))
    assert look(30.0) == []
    assert look(32.0) == ["a.wav"]
    (folder / "a.wav").rename(folder / "b.wav")
    (folder / ".hidden.wav").write_bytes(b"1")
    (folder / "notes.txt").write_bytes(b"1")
    (folder / "dead.wav").symlink_to(folder / "nothing.wav")
    assert look(40.0) == []
    assert look(42.0) == ["b.wav"]


def test_shards_share_a_folder(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"{n}.wav").write_bytes(b"x")
    parts = [{t.id for t in Arrivals(tmp_path, 0, Shard(i, 3)).look(0.0)} for i in (1, 2, 3)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20


def test_a_folder_that_goes_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beatmeter.features.watch.watcher._FIRST", 0.05)
    inbox = tmp_path / "in"
    inbox.mkdir()
    service = FeatureService(
        FeatureConfig(cache=str(tmp_path / "cache"), backbone="spectral", window=2), torch.device("cpu")
    )
    store, stop = service.store(), threading.Event()
    file = StatusFile(tmp_path / "cache" / "watch", Status(str(inbox), store.where))
    watcher = Watcher(service, store, Arrivals(inbox, 0.05, Shard()), file, stop, 0.02, False)
    with file.held(), logging_to(file.path.with_suffix(".log")):
        thread = threading.Thread(target=watcher.run, args=(lambda: None,))
        thread.start()
        try:
            (inbox / "a.wav").write_bytes(clip(1))
            until(lambda: file.status.done == 1)
            inbox.rename(tmp_path / "away")
            until(lambda: file.status.state == "blocked")
            assert "cannot list" in file.status.last_error
            (tmp_path / "away").rename(inbox)
            (inbox / "b.wav").write_bytes(clip(2))
            (inbox / "empty.wav").touch()
            until(lambda: (file.status.done, file.status.failed, file.status.state) == (2, 1, "idle"))
        finally:
            stop.set()
            thread.join()
    assert (status_module.read(tmp_path / "cache")[0].state, file.status.extracted) == ("stopped", 2)
    assert "empty.wav" in file.path.with_suffix(".log").read_text()


@contextlib.contextmanager
def watching(inbox: Path, cache: Path) -> Iterator[Watcher]:
    """A watcher in a thread of this process, whose parts can be disturbed."""
    inbox.mkdir(exist_ok=True)
    service = FeatureService(
        FeatureConfig(cache=str(cache), backbone="spectral", window=2), torch.device("cpu")
    )
    file = StatusFile(cache / "watch", Status(str(inbox), service.store().where))
    watcher = Watcher(
        service, service.store(), Arrivals(inbox, 0.05, Shard()), file, threading.Event(), 0.02, False
    )
    with file.held(), logging_to(file.path.with_suffix(".log")):
        thread = threading.Thread(target=watcher.run, args=(lambda: None,))
        thread.start()
        try:
            yield watcher
        finally:
            watcher.stop.set()
            thread.join()


def test_a_machine_without_room_for_temporary_files_is_not_the_fault_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("beatmeter.features.watch.arrivals._AGAIN", 0.2)
    with watching(tmp_path / "in", tmp_path / "cache") as watcher, monkeypatch.context() as disk:
        disk.setattr("beatmeter.audio.ffmpeg.available", lambda: True)
        disk.setattr(tempfile, "TemporaryFile", full)
        (tmp_path / "in" / "a.m4a").write_bytes(b"no music for libsndfile")
        (tmp_path / "in" / "b.wav").write_bytes(clip(2))
        until(lambda: watcher.status.last_error and (watcher.status.done, watcher.status.failed) == (1, 1))
        assert "in/a.m4a: No space left" in watcher.status.last_error
        assert "TMPDIR" in watcher.status.last_error
        assert watcher.store.failures() == {}
        disk.undo()
        until(lambda: watcher.store.failures())  # it was tried again, and now it is the file
    assert watcher.file.path.with_suffix(".log").read_text().count("Traceback") == 0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Batches do not end before this is set, though everything in them is done."""
    release, fill = threading.Event(), FeatureService.fill

    def slow(*arguments: Any) -> Filled:
        filled = fill(*arguments)
        assert release.wait(PATIENCE)
        return filled

    monkeypatch.setattr(FeatureService, "fill", slow)
    yield release
    release.set()


def replaced(path: Path, times: int = 3) -> None:
    """Wait until the file was replaced so often."""
    for _ in range(times):
        before = path.stat().st_mtime_ns
        until(lambda before=before: path.stat().st_mtime_ns != before)


def test_the_status_is_written_while_a_long_file_a_hash_or_a_back_off_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr("beatmeter.features.watch.watcher._NEWS", 0.1)
    monkeypatch.setattr("beatmeter.features.watch.watcher._FIRST", 30.0)
    with watching(tmp_path / "in", tmp_path / "cache") as watcher:
        (tmp_path / "in" / "a.wav").write_bytes(clip(1))
        until(lambda: watcher.status.extracted == 1)
        replaced(watcher.file.path)
        assert watcher.status.state == "extracting"
        held.set()
        until(lambda: watcher.status.state == "idle")
        (tmp_path / "in").rename(tmp_path / "away")
        until(lambda: watcher.status.state == "blocked")
        replaced(watcher.file.path)
        assert status_module.read(tmp_path / "cache")[0].state == "blocked"


def test_trouble_with_the_store_is_over_when_it_takes_tracks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    monkeypatch.setattr("beatmeter.features.watch.watcher._FIRST", 0.05)
    commit, full = Store.commit, iter([True, True])

    def fail_twice(store: Store, tracks: Any) -> Any:
        if next(full, False):
            raise StoreError("No space left on device", "Make room.")
        return commit(store, tracks)

    monkeypatch.setattr(Store, "commit", fail_twice)
    with watching(tmp_path / "in", tmp_path / "cache") as watcher:
        (tmp_path / "in" / "a.wav").write_bytes(clip(1))
        until(lambda: watcher.status.extracted == 1)
        assert "No space" in watcher.status.last_error
        until(lambda: watcher.status.state == "extracting")  # though the batch goes on
        assert watcher._delay == 0.05
        held.set()


def test_it_says_that_it_stops_when_it_is_told_to_not_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: threading.Event
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with watching(tmp_path / "in", tmp_path / "cache") as watcher:
            assert manager.recv(100) == b"READY=1"
            (tmp_path / "in" / "a.wav").write_bytes(clip(1))
            until(lambda: watcher.status.extracted == 1)
            watcher.stop.set()
            assert manager.recv(100) == b"STOPPING=1"
            until(lambda: status_module.read(tmp_path / "cache")[0].state == "stopping")
            held.set()
    assert status_module.read(tmp_path / "cache")[0].state == "stopped"


def test_stopping_does_not_wait_for_hashing_or_for_a_long_file_to_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stop = tmp_path / "in", threading.Event()
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.wav").write_bytes(clip(n))
    service = FeatureService(
        FeatureConfig(cache=str(tmp_path / "cache"), backbone="spectral", window=2), torch.device("cpu")
    )
    tracks = Arrivals(folder, 0, Shard()).look(0.0)
    digest, told = hashlib.file_digest, []

    def stop_while_hashing(file: Any, name: str) -> Any:
        stop.set()
        return digest(file, name)

    def endless(path: Path, rate: int) -> Iterator[np.ndarray]:
        while True:
            yield np.zeros(1)
            stop.set()

    with monkeypatch.context() as hashing:
        hashing.setattr(hashlib, "file_digest", stop_while_hashing)
        filled = service.fill(service.store(), tracks, Filling(told.append, stop=stop))
    assert (filled.keys, filled.failed, filled.done) == ({}, {}, 0)
    stop.clear()
    monkeypatch.setattr(decode_or_count, "__defaults__", (0.5,))  # these are long files now
    monkeypatch.setattr("beatmeter.audio.ahead.stream", endless)
    filled = service.fill(service.store(), tracks, Filling(told.append, stop=stop))
    assert (filled.failed, filled.done) == ({}, 0)
    assert service.store().failures() == {}


def test_a_folder_below_it_that_cannot_be_listed_is_left_out_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, locked = os.scandir, threading.Event()

    def refuse(path: Any) -> Any:
        if locked.is_set() and str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    inbox = tmp_path / "in"
    (inbox / "lost+found").mkdir(parents=True)
    (inbox / "lost+found" / "a.wav").write_bytes(clip(1))
    with watching(inbox, tmp_path / "cache") as watcher:
        until(lambda: watcher.status.done == 1)
        locked.set()
        until(lambda: watcher.status.last_error)
        assert "lost+found" in watcher.status.last_error
        (inbox / "b.wav").write_bytes(clip(2))
        until(
            lambda: (watcher.status.done, watcher.status.state) == (2, "idle")
        )  # the one that cannot be seen is still known
        locked.clear()
        (inbox / "c.wav").write_bytes(clip(3))
        until(lambda: (watcher.status.done, watcher.status.state) == (3, "idle"))
    assert watcher.status.extracted == 3
    assert watcher.file.path.with_suffix(".log").read_text().count("Permission denied") == 1


@pytest.mark.parametrize("folder", ["/music", f"/{'long/' * 800}", "/音楽/" * 300])
@pytest.mark.parametrize("reason", ["x" * 5000, "曲" * 5000, "🎵\n" * 5000])
def test_on_a_full_disk_the_status_is_written_over_in_place(
    tmp_path: Path, folder: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "watch").mkdir()
    file = StatusFile(tmp_path / "watch", Status(folder, "store"))
    file.write()
    before = file.path.stat()
    assert before.st_size % 4096 == 0
    monkeypatch.setattr(status_module, "write_text", full)
    file.status.done = 123_456_789
    file.fail(reason)
    (told,) = status_module.read(tmp_path)
    assert (told.state, told.done, told.folder) == ("crashed", 123_456_789, folder)
    assert len(told.last_error) >= 80
    assert told.last_error == shown(reason)[: len(told.last_error)]
    assert (file.path.stat().st_size, file.path.stat().st_ino) == (before.st_size, before.st_ino)


def test_logs_rotate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("beatmeter.features.watch.log._BYTES", 2_000)
    with logging_to(tmp_path / "a.log"):
        for n in range(300):
            LOG.info("line %d", n)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log", *(f"a.log.{i}" for i in range(1, 6))]
    assert all(p.stat().st_size <= 2_000 for p in tmp_path.iterdir())
    assert "line 299" in (tmp_path / "a.log").read_text()
    assert "line 0" in capsys.readouterr().err


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    def error_of(*options: str) -> BaseException | None:
        return (
            CliRunner()
            .invoke(cli, ["extract", str(tmp_path / "absent"), "--watch", *SPECTRAL, *options])
            .exception
        )

    assert isinstance(error_of(), DataError)
    for extra in (["--limit", "3"], ["--engine", "dask"], ["--workers", "2"]):
        assert isinstance(error_of(*extra), ConfigError)
    held = StatusFile(tmp_path, Status("/music", "store"))
    with (
        held.held(),
        pytest.raises(EngineError, match="another process watches /music"),
        StatusFile(tmp_path, Status("/music", "store")).held(),
    ):
        pass
    with StatusFile(tmp_path, Status("/other", "store")).held():
        pass


def test_weights_that_cannot_be_read_end_it_at_the_start_and_the_status_says_why(tmp_path: Path) -> None:
    weights = write_hub_folder(tmp_path / "weights")
    tensors = weights / "pytorch_model.bin"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    (tmp_path / "in").mkdir()
    options = ["--set", f"features.backbone={weights}", "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    done = CliRunner().invoke(cli, ["extract", "--watch", str(tmp_path / "in"), *options])
    assert isinstance(done.exception, BackboneError)
    (status,) = status_module.read(tmp_path / "cache")
    assert status.state == "crashed"
    assert status.last_error == str(done.exception)
    assert not status.alive()
