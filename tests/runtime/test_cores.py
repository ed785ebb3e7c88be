"""Threads that sleep while they wait, and no more of them than cores that may be used; a user's own settings
win."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beatmeter.runtime import cores

ROOT = Path(__file__).resolve().parents[2]
OF_THREADS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OPENBLAS_NUM_THREADS")
ROOTS = ("tests/conftest.py", "benchmarks/conftest.py")
WITH_THREADS = {
    "torch",
    "sklearn",
    "scipy",
    "librosa",
    "transformers",
    "peft",
}  # what loads an OpenMP runtime, sooner or later


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process that nobody told how to wait."""
    bare = {name: value for name, value in os.environ.items() if name not in OF_THREADS}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare | environment
    )


def runtime(**environment: str) -> dict[str, str]:
    """What torch's OpenMP runtime says it took, in a process that imports beatmeter first."""
    told = fresh("import beatmeter, torch", OMP_DISPLAY_ENV="VERBOSE", **environment).stderr
    pairs = [line.replace("[host]", "").strip().split(" = ") for line in told.splitlines() if " = " in line]
    return {name: value.strip("'") for name, value in pairs}


def test_the_threads_of_torch_wait_passively() -> None:
    settled = runtime()
    if not settled:
        pytest.skip("this build of torch has another runtime than GNU's or LLVM's")
    assert settled["OMP_WAIT_POLICY"] == "PASSIVE"
    assert int(settled.get("GOMP_SPINCOUNT", "0")) <= 1000


@pytest.mark.parametrize(
    "own",
    [
        {"OMP_WAIT_POLICY": "ACTIVE"},
        {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "77"},
        {"GOMP_SPINCOUNT": "77"},
    ],
)
def test_the_settings_of_a_user_win(own: dict[str, str]) -> None:
    settled = runtime(**own)
    if not settled:
        pytest.skip("this build of torch has another runtime than GNU's or LLVM's")
    assert {name: settled.get(name, own[name]) for name in own} == own


def test_nothing_else_is_settled_beside_a_policy_of_the_users() -> None:
    environment = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "5"}
    cores.wait_passively(environment)
    assert environment == {
        "OMP_WAIT_POLICY": "ACTIVE",
        "OMP_NUM_THREADS": "5",
        "OPENBLAS_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(("own", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_numpy_multiplies_in_one_thread_unless_a_user_says_otherwise(
    own: dict[str, str], threads: int
) -> None:
    code = "import beatmeter, numpy, json, threadpoolctl as t; print(json.dumps(t.threadpool_info()))"
    found = [pool for pool in json.loads(fresh(code, **own).stdout) if pool["internal_api"] == "openblas"]
    if not found:
        pytest.skip("this build of numpy has another library than OpenBLAS")
    assert [pool["num_threads"] for pool in found] == [min(threads, os.cpu_count() or 1)] * len(found)


def test_importing_beatmeter_settles_it_before_any_library_is_there() -> None:
    told = json.loads(
        fresh(
            "import beatmeter, json, os, sys; print(json.dumps([os.environ['OMP_WAIT_POLICY'], "
            "sorted(sys.modules)]))"
        ).stdout
    )
    assert told[0] == "PASSIVE"
    assert not {*WITH_THREADS, "numpy"} & set(told[1])


def test_processes_of_a_pool_wait_passively() -> None:
    code = (
        "import os; from beatmeter.runtime.parallel import ordered\nfor v in ordered(os.getenv, "
        "['OMP_WAIT_POLICY'] * 3, jobs=2): print(v)"
    )
    assert fresh(code).stdout.split() == ["PASSIVE"] * 3
    assert fresh(code, OMP_WAIT_POLICY="ACTIVE").stdout.split() == ["ACTIVE"] * 3


def imported(source: str) -> list[str]:
    """The packages that a script imports at its top, in order."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "").partition(".")[0])
    return found


def entries() -> dict[str, str]:
    """Sources of everything that is started by itself and is no module of the package."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    sources = {
        name: (ROOT / name).read_text(encoding="utf-8")
        for name in listed
        if not name.startswith("beatmeter/")
    }
    found = {
        name: text for name, text in sources.items() if name in ROOTS or '__name__ == "__main__"' in text
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
        found[path.name] = code.replace("%pip", "pass  #")
    return found


@pytest.mark.parametrize("name", sorted(entries()))
def test_every_entry_imports_beatmeter_before_what_has_threads(name: str) -> None:
    packages = imported(entries()[name])
    threaded = [packages.index(package) for package in packages if package in WITH_THREADS]
    if name in ROOTS or name.endswith(".ipynb"):
        assert "beatmeter" in packages
    assert not threaded or packages.index("beatmeter") < threaded[0]


def in_a_group(monkeypatch: pytest.MonkeyPatch, root: Path, groups: str, limits: dict[str, str]) -> None:
    """This process in a tree of control groups: `groups` as /proc/self/cgroup tells them, `limits` by
    file."""
    (root / "own").write_text(groups)
    for path, text in limits.items():
        file = root / "groups" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(cores, "GROUPS", root / "groups")
    monkeypatch.setattr(cores, "OWN", root / "own")
    monkeypatch.setattr(cores, "quota", cores.quota.__wrapped__)  # no memory of an earlier group


@pytest.mark.parametrize(
    ("groups", "limits", "quota"),
    [
        ("0::/job\n", {"job/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "400000 50000\n"}, 2.0),
        (
            "0::/docker/1234\n",
            {"cpu.max": "50000 100000\n"},
            0.5,
        ),  # the path of the outside, seen from within
        ("0::/\n", {}, math.inf),
        (
            "3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "300000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("3:cpuset:/job\n0::/\n", {"cpuset/job/cpu.cfs_quota_us": "1\n"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_a_quota_of_control_groups_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, limits: dict[str, str], quota: float
) -> None:
    in_a_group(monkeypatch, tmp_path, groups, limits)
    assert cores.quota() == quota


@pytest.mark.parametrize(
    ("limit", "usable"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)]
)
def test_no_more_threads_than_the_quota_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, usable: int
) -> None:
    in_a_group(monkeypatch, tmp_path, "0::/job\n", {"job/cpu.max": limit})
    monkeypatch.setattr(cores, "_affinity", lambda: 4)
    environment: dict[str, str] = {}
    cores.wait_passively(environment)
    assert cores.usable_cores() == usable
    assert environment.get("OMP_NUM_THREADS") == (
        str(usable) if usable < 4 else None
    )  # the runtimes see the four themselves
    own = {"OMP_NUM_THREADS": "3"}
    cores.wait_passively(own)
    assert own["OMP_NUM_THREADS"] == "3"


def test_torch_takes_the_threads_of_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_group(monkeypatch, tmp_path, "0::/\n", {"cpu.max": "100000 100000"})
    code = (
        "from pathlib import Path; from beatmeter.runtime import cores; cores.quota.cache_clear()\n"
        f"cores.GROUPS, cores.OWN = Path({str(cores.GROUPS)!r}), Path({str(cores.OWN)!r})\n"
        "cores.wait_passively()\nimport torch; print(torch.get_num_threads())"
    )
    assert fresh(code).stdout.split() == ["1"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfrom beatmeter.runtime.cores "
        "import usable_cores\nimport torch"
    )
    assert fresh(f"{code}; print(usable_cores(), torch.get_num_threads())").stdout.split() == ["1", "1"]
