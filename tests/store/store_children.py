"""Processes for the fault tests: `python store_children.py ROLE ...`. They write to a store until somebody
kills them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import store_samples as samples

from beatmeter.errors import StoreError
from beatmeter.store import Store
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.repair import repair

GAVE_UP = 3  # exit status of a writer whose commit failed with a StoreError
STEPS = ("fsync", "rename", "replace", "link", "unlink", "write", "mkdir", "rmdir")


def say(*words: object) -> None:
    print(*words, flush=True)


def die_at(step: int, after: bool) -> None:
    """Let this process kill itself with -9 at the `step`-th operation that changes a disk: just before or
    just after it."""
    count = 0

    def patch(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def operation(*args: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            last = count == step
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **keywords)
            finally:
                if last:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, operation)

    for name in STEPS:
        patch(name)


def damage(store: Store, number: int) -> None:
    """Flip a bit in the last row of one pooling of a commit, and one in the record of the commit before
    it."""
    segment = store.catalog.read(number).segment
    layout = store.layout.arrays["stats"]
    for file, at in (
        (store.path / f"segments/{segment}/{layout.shard}", -30),
        (store.path / store.catalog.journal.path(number - 1), 40),
    ):
        data = bytearray(file.read_bytes())
        if at < 0:
            at = layout.stride * store.catalog.read(number).extents["stats"].rows + at
        data[at] ^= 4
        file.write_bytes(data)


def every_step(path: Path, action: str, stride: int) -> None:
    """Do `action` again and again, each time in a process that dies `stride` steps later, until one survives
    to the end. Tells which tracks were committed before, and which the dying process acknowledged."""
    of = samples.spec()
    for after in (False, True):
        for step in range(1 + after, 10_000, stride):
            store = Store.create(path, of)
            number = 10 * step + 4 * after
            say("acknowledged", *store.commit(samples.tracks(of, [number, number + 5_000])).added)
            if action == "repair":
                receipt = store.commit(samples.tracks(of, [number + 1, number + 5_001]))
                say("acknowledged", receipt.added[0])
                damage(store, receipt.number)
            elif action == "gc":
                say("acknowledged", *store.commit(samples.tracks(of, [number + 1])).added)
                compact(store)  # something to collect
            child = os.fork()
            if child == 0:
                store = Store.open(path)
                die_at(step, after)
                if action == "commit":
                    say("dying", *store.commit(samples.tracks(of, [1_000_000 + number])).added)
                elif action == "compact":
                    compact(store)
                elif action == "gc":
                    collect(store, 0.0)
                elif action == "repair":
                    repair(path)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                say("steps", step - 1)
                break


def write_forever(path: Path | str, first: int, stride: int) -> None:
    """Commit two tracks at a time to a folder or an address, and tell each as soon as it is acknowledged."""
    of = samples.spec()
    store = Store.create(path, of)
    say("ready")
    number = first
    while True:
        try:
            receipt = store.commit(samples.tracks(of, [number, number + stride]))
        except StoreError as error:
            say("gave up:", error)
            sys.exit(GAVE_UP)
        say("acknowledged", *receipt.added, *receipt.present)
        number += 2 * stride


def compact_forever(path: Path) -> None:
    """Compact and collect without a grace period, which is rougher than anybody should be."""
    say("ready")
    while True:
        compact(Store.open(path), target=1 << 20)
        collect(Store.open(path), 0.0)
        say("compacted")


if __name__ == "__main__":
    role, store_path, *rest = sys.argv[1:]
    os.fsync = lambda handle: None  # type: ignore[assignment]  # counted as a step, not waited for
    if role == "every-step":
        every_step(Path(store_path), rest[0], int(rest[1]))
    elif role == "write":
        write_forever(store_path, int(rest[0]), int(rest[1]))
    elif role == "compact":
        compact_forever(Path(store_path))
    else:
        sys.exit(f"unknown role {role}")
