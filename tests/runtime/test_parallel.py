"""Work in processes: in order, bounded, and no item lost when a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import PATIENCE, ends, until

from beatmeter.runtime.parallel import Crash, WorkerError, ordered


def never() -> int:
    """An item that does not end by itself."""
    threading.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_come_in_order(jobs: int, tmp_path: Path) -> None:
    def square(n: int) -> int:
        if jobs == 2 and n % 3 == 0:  # it ends after its neighbour
            until((tmp_path / str(n + 1)).exists)
        (tmp_path / str(n)).touch()
        return n * n

    assert list(ordered(square, range(20), jobs)) == [n * n for n in range(20)]
    assert list(ordered(square, [], jobs)) == []


def test_no_more_than_asked_for_are_begun_ahead() -> None:
    asked: list[int] = []

    def items():
        for n in range(100):
            asked.append(n)
            yield n

    results = ordered(lambda n: n, items(), 2, depth=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(asked) <= 8
    results.close()


def test_work_is_shared(tmp_path: Path) -> None:
    def who(n: int) -> int:
        (tmp_path / str(os.getpid())).touch()
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        return os.getpid()

    found = set(ordered(who, range(12), 2))
    assert len(found) == 2
    assert os.getpid() not in found


def test_an_exception_is_raised_here() -> None:
    def fail(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return n

    results = ordered(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_an_item_that_kills_its_process_is_the_only_loss() -> None:
    def die(n: int) -> int:
        if n in (2, 3, 9):
            os._exit(7)
        return n

    assert list(ordered(die, range(12), 2)) == [Crash() if n in (2, 3, 9) else n for n in range(12)]


def test_a_process_that_dies_by_accident_costs_nothing(tmp_path: Path) -> None:
    def once(n: int) -> int:
        if n == 4 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(7)
        return n

    assert list(ordered(once, range(10), 2)) == list(range(10))


def test_leaving_early_waits_for_nobody() -> None:
    def slow(n: int) -> int:
        return n if n == 0 else never()

    results = ordered(slow, range(50), 2)
    assert next(results) == 0
    ends(results.close)


def test_ctrl_c_which_a_terminal_sends_to_all_is_left_to_the_parent(tmp_path: Path) -> None:
    def interrupted(n: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return n

    assert list(ordered(interrupted, range(4), 2)) == [0, 1, 2, 3]


def test_ctrl_c_before_a_process_can_ignore_it_is_left_to_the_parent_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interpreter runs this while it starts.
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def held(n: int) -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    assert list(ordered(held, range(4), 2)) == [False] * 4
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("deadly", [False, True])
def test_a_stop_waits_for_no_result_also_of_one_that_is_tried_alone(tmp_path: Path, deadly: bool) -> None:
    rest: list[object] = []

    def slow(n: int) -> int:
        if n == 1:
            (tmp_path / str(os.getpid())).touch()
            if deadly and len(list(tmp_path.iterdir())) == 1:
                os._exit(7)
            never()
        return n

    def stop_when_begun() -> None:
        until(lambda: len(list(tmp_path.iterdir())) == 1 + deadly)
        stop.set()

    stop = threading.Event()
    results = ordered(slow, range(10), 2, stop=stop)
    assert next(results) == 0
    threading.Thread(target=stop_when_begun).start()
    ends(lambda: rest.extend(results))
    assert rest == []


def test_a_stop_is_heeded_in_this_process_too() -> None:
    stop = threading.Event()
    results = ordered(lambda n: n, range(10), 1, stop=stop)
    assert next(results) == 0
    stop.set()
    assert list(results) == []


def test_a_process_that_dies_while_it_sends_a_result_is_a_crash_too() -> None:
    def die(n: int) -> int:
        from multiprocessing.connection import Connection

        def half(self: Connection, data: bytes) -> None:
            self._send(bytes([0, 1, 0, 0]) + b"not all of 65,536 bytes")
            os._exit(7)

        if n == 3:
            Connection._send_bytes = half  # in that process
        return n

    assert list(ordered(die, range(8), 2)) == [Crash() if n == 3 else n for n in range(8)]


LARGE = """
from beatmeter.runtime.parallel import ordered
for _ in range(5):
    results = ordered(lambda n: bytes(60_000_000), range(40), 2)
    next(results)
    results.close()
print("done")
"""


def test_leaving_early_in_the_middle_of_a_large_result_does_not_wait_for_the_rest_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "done\n", done.stderr


NESTED = """
import os, sys, threading
from beatmeter.runtime.parallel import ordered
def outer(n):
    def inner(m):
        open(os.path.join(sys_argv[1], str(os.getpid())), "w").close()
        threading.Event().wait()
    list(ordered(inner, range(2), 2))
sys_argv = sys.argv
list(ordered(outer, range(2), 2))
"""


def alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody asked for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the list of processes is read from /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_one_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", NESTED, str(tmp_path)]) as process:
        try:
            until(lambda: len(list(tmp_path.iterdir())) == 4, process=process)
        finally:
            process.send_signal(number)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    try:
        until(lambda: not any(map(alive, pids)))
    finally:
        for pid in filter(alive, pids):  # leave none behind, also when this fails
            os.kill(pid, signal.SIGKILL)


def test_leaving_early_ends_pools_within_the_processes_too(tmp_path: Path) -> None:
    def outer(n: int) -> int:
        def inner(m: int) -> None:
            (tmp_path / str(os.getpid())).touch()
            never()

        if n == 0:
            return n
        list(ordered(inner, range(2), 2))
        return n

    results = ordered(outer, range(3), 2)
    assert next(results) == 0
    until(lambda: len(list(tmp_path.iterdir())) >= 2)
    results.close()
    until(lambda: not any(alive(int(path.name)) for path in tmp_path.iterdir()))


def test_an_error_of_a_connection_is_the_function_s_own() -> None:
    def fail(n: int) -> int:
        raise ConnectionResetError("by a server")

    with pytest.raises(ConnectionResetError, match="by a server"):
        list(ordered(fail, range(3), 2))


def test_processes_that_do_not_start_are_an_error_and_no_loss_of_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match=r"ended before it began.*fewer --jobs"):
        list(ordered(abs, range(3), 2))
