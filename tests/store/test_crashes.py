"""kill -9 at every step and at random moments: nothing acknowledged is lost, nothing wrong is ever read.

BEATMETER_FULL=1 kills 20 times at random, BEATMETER_KILLS as often as one wants.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import store_children
import store_samples as samples
from waiting import PATIENCE, Lines, until

from beatmeter.errors import StoreError
from beatmeter.store import Store
from beatmeter.store.gc import collect
from beatmeter.store.verify import verify

KILLS = int(os.environ.get("BEATMETER_KILLS", "20" if os.environ.get("BEATMETER_FULL", "0") != "0" else "6"))
NUMBERS = {samples.key(n): n for n in [*range(12_000), *range(1_000_000, 1_002_000)]}


def run(*arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, store_children.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def require_right(path: Path, acknowledged: set[str]) -> None:
    """Every acknowledged track is there, every track is bit for bit what its number makes, and a full check
    agrees."""
    of = samples.spec()
    report = verify(path, full=True)
    assert report.sound, report.faults
    snapshot = Store.open(path).snapshot()
    assert acknowledged <= set(snapshot.keys)
    for key in snapshot.keys:
        assert samples.same(snapshot.read(key), samples.features(of, NUMBERS[key]))


@pytest.mark.parametrize("action", ["commit", "compact", "gc", "repair"])
def test_killed_at_every_step(tmp_path: Path, action: str) -> None:
    path = tmp_path / "store"
    lines = run("every-step", path, action, 1 if action == "commit" or KILLS >= 20 else 4)
    steps = [int(line.split()[1]) for line in lines if line.startswith("steps")]
    assert len(steps) == 2  # before and after each operation
    assert min(steps) > 10
    acknowledged = {
        key for line in lines if line.startswith(("acknowledged", "dying")) for key in line.split()[1:]
    }
    assert any(line.startswith("dying") for line in lines) == (action == "commit")
    require_right(path, acknowledged)
    collect(Store.open(path), 0.0)
    assert verify(path).faults == ()
    require_right(path, acknowledged)


COLLECTED = re.compile(
    r"gave up: .*(removed meanwhile|was collected as garbage while it was being committed)"
)


def test_killed_at_random_moments_while_others_read(tmp_path: Path) -> None:
    """Every other time beside a collection without any grace, which may take what a writer has not committed.
    The promise: such a writer ends at once with an error that says so, it acknowledged nothing of it, and
    nobody else ends by himself."""
    path, of = tmp_path / "store", samples.spec()
    Store.create(path, of)
    acknowledged: set[str] = set()
    rng = random.Random(0)
    for number in range(KILLS):
        children = [
            subprocess.Popen(
                [sys.executable, store_children.__file__, "write", str(path), str(first), "2"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for first in (200 * number, 200 * number + 1)
        ]
        if number % 2:
            children.append(
                subprocess.Popen(
                    [sys.executable, store_children.__file__, "compact", str(path)],
                    stdout=subprocess.PIPE,
                    text=True,
                    stderr=subprocess.DEVNULL,
                )
            )
        told = [Lines(child) for child in children]
        last = [
            rng.randint(4, 20) if i < 2 else rng.randint(1, 4) for i in range(len(children))
        ]  # lines: commits, compactions

        def kill_those_that_are_due(children: Any = children, told: Any = told, last: Any = last) -> bool:
            due = [len(lines.seen) > n for lines, n in zip(told, last, strict=True)]
            for child, over in zip(children, due, strict=True):
                if over:
                    child.kill()
            return all(over or child.poll() is not None for child, over in zip(children, due, strict=True))

        until(kill_those_that_are_due, lambda: read_some(path, rng))
        for i, (child, lines) in enumerate(zip(children, told, strict=True)):
            if child.wait() != -signal.SIGKILL:
                assert (child.returncode, i < 2, len(children)) == (store_children.GAVE_UP, True, 3), (
                    lines.all()
                )
                assert COLLECTED.match(lines.all()[-1]), lines.all()[-1]
            acknowledged |= {
                key
                for line in lines.all()
                if line.startswith("acknowledged")
                for key in line.split()[1:]
                if key in NUMBERS
            }
        require_right(path, acknowledged)
    assert len(acknowledged) > 5 * KILLS


def read_some(path: Path, rng: random.Random) -> None:
    """A reader in the middle of it: what it gets is right; a segment collected under its feet is an error
    that says so."""
    snapshot = Store.open(path).snapshot()
    keys = list(snapshot.keys)
    for key in rng.sample(keys, min(3, len(keys))):
        try:
            assert samples.same(snapshot.read(key), samples.features(samples.spec(), NUMBERS[key]))
        except StoreError as error:
            assert "open the store again" in str(error)  # noqa: PT017


def test_two_and_four_writers_at_once(tmp_path: Path) -> None:
    """Overlapping tracks: each is there once, and the receipts of all writers agree on who was first."""
    path = tmp_path / "store"
    script = (
        "import sys, store_samples as s\n"
        "from beatmeter.store import Store\n"
        "of = s.spec(); store = Store.create(sys.argv[1], of)\n"
        "first = int(sys.argv[2])\n"
        "for n in range(first, first + 24, 4):\n"
        "    print(*store.commit(s.tracks(of, range(n, n + 8))).added, flush=True)\n"
    )
    for writers in (2, 4):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(path), str(1000 * writers + 4 * (i % 2))],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            )
            for i in range(writers)
        ]
        added = [key for child in children for key in child.communicate(timeout=PATIENCE)[0].split()]
        assert all(child.returncode == 0 for child in children)
        wanted = [samples.key(n) for n in range(1000 * writers, 1000 * writers + 32)]
        assert sorted(added) == sorted(wanted)  # each added by exactly one
        require_right(path, set(wanted))
