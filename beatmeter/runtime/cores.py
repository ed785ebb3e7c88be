"""How many cores this process may really use, and threads that sleep while they wait for each other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from functools import cache
from pathlib import Path

GROUPS, OWN = (
    Path("/sys/fs/cgroup"),
    Path("/proc/self/cgroup"),
)  # where the kernel tells of control groups, and which are this process's


def usable_cores() -> int:
    """Cores that this process may keep busy: those it may run on (affinity), and no more than the CPU quota
    of its control groups (containers, batch systems) pays for."""
    allowed = quota()
    return (
        _affinity() if math.isinf(allowed) else min(_affinity(), max(1, math.ceil(allowed)))
    )  # one thread cannot use one and a half


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Settle in `environment` how the threads of OpenMP wait and how many they are. The runtimes read it when
    they are loaded, so importing beatmeter before torch, scikit-learn or MKL does it for this process, and at
    any time for those that it starts.

    By default threads spin at a barrier until the last of them arrives. When another program has the core of
    that one, they burn theirs for its whole time slice, at every barrier. Here they sleep, after about as
    many turns as sleeping and waking take: without these small heads train a quarter slower on a quiet
    machine. Their number is set only where a quota allows fewer cores than the machine has, which the
    runtimes do not see. What is set already stays.

    The threads of OpenBLAS, which numpy and scipy bring, know no such waiting: beside four busy processes on
    two cores, 60 solutions of 600 equations took two of them 53 to 184 s and 8 to 10 s of processor time, one
    4.2 and 0.35 s. So they are one, unless a user says otherwise; what is large goes through torch.
    """
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault(
            "GOMP_SPINCOUNT", "1000"
        )  # some 20 us; the default of 300,000 is longer than a time slice
        environment.setdefault(
            "KMP_BLOCKTIME", "0"
        )  # LLVM's and Intel's runtimes spin for 0.2 s all the same
    if usable_cores() < _affinity():
        environment.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def control_groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups that limit this process by `controller` ("cpu", "memory"), innermost
    first, and whether they are of version 2. Inside a container the paths may be those of the outside;
    folders that are not there are named too."""
    for line in lines(OWN):
        number, controllers, path = line.split(":", 2)
        unified = number == "0" and not controllers
        if unified or controller in controllers.split(","):
            top = GROUPS if unified else GROUPS / controller
            folder = top / path.strip("/")
            while folder != top:
                yield folder, unified
                folder = folder.parent
            yield top, unified


@cache
def quota() -> float:
    """Cores' worth of time that the control groups allow, the strictest of them; infinite without a limit."""
    least = math.inf
    for folder, unified in control_groups("cpu"):
        names = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = " ".join(line for name in names for line in lines(folder / name)).split()
        if len(words) == 2 and all(
            word.isdigit() and int(word) for word in words
        ):  # else "max", -1, or nothing there
            least = min(least, int(words[0]) / int(words[1]))
    return least


def lines(path: Path) -> list[str]:
    """The lines of a file of the kernel's; none when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
