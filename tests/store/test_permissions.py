"""Stores, and folders of stores, that this user may not enter or list: every command says so in one line and
ends with a status that is not 0. It never calls sound what it did not see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_samples as samples

from beatmeter.store import Store

COMMANDS = (
    ["info"],
    ["info", "--json"],
    ["verify"],
    ["verify", "--full"],
    ["failures"],
    ["repair"],
    ["compact"],
    ["gc", "--dry-run"],
    ["gc", "--older-than", "0s"],
    ["export", "--out", "f.h5", "--overwrite"],
    ["bench", "--rounds", "1"],
)
AS_SOMEBODY = """
import contextlib, io, json, os, sys
from beatmeter.cli import main
cases, commands, warm = map(json.loads, sys.argv[1:])
told = []
# First everything is imported: another user may not be able to read the interpreter's modules.
for case in [warm, *cases]:
    if case != warm and os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for command in commands:
        sys.argv = ["beatmeter", "cache", command[0], case, *command[1:]]
        out, errors = io.StringIO(), io.StringIO()
        status = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                main()
                status = 0
            except SystemExit as end:
                status = end.code
        told.append([case, command, status, out.getvalue(), errors.getvalue()])
assert not any(status for _, _, status, _, _ in told[: len(commands)]), told[: len(commands)]
print(json.dumps(told[len(commands) :]))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with everything above it; pytest's own are closed to others."""
    folder = Path("/tmp") / f"beatmeter-permissions-{os.getpid()}"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o777)
    shutil.rmtree(folder)


def run_as_somebody(
    cases: list[Path], commands: list[list[str]], where: Path
) -> list[tuple[str, list[str], int, str, str]]:
    """What each command says of each path when another user calls it (this one, unless it is root): status,
    output, errors."""
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": search, "HOME": str(where), "TMPDIR": str(where)}
    Store.create(where / "warm", samples.spec()).commit(samples.tracks(samples.spec(), [0]))
    open_to_all(where / "warm")
    arguments = [
        json.dumps(value) for value in ([str(case) for case in cases], commands, str(where / "warm"))
    ]
    done = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=where,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(told) for told in json.loads(done.stdout.strip().splitlines()[-1])]


def open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


def test_what_may_not_be_entered_is_never_sound(place: Path) -> None:
    """Each folder of a store closed in turn, or open to be listed and not to be entered; beside it a store
    that is sound."""
    made = Store.create(place / "made", samples.spec())
    made.commit(samples.tracks(made.spec, [0, 1]))
    made.catalog.save_index()
    cases = []
    for name in ("", "commits", "segments", "index", f"segments/{made.catalog.read(1).segment}"):
        for mode in (0o000, 0o444):
            cache = place / f"{name.replace('/', '-')[:9]}-{mode:o}"
            for store in ("closed", "sound"):
                shutil.copytree(made.path, cache / store)
            open_to_all(cache)
            (cache / "closed" / name).chmod(mode)
            cases += [cache, cache / "closed"]
    told = run_as_somebody(cases, [*COMMANDS], place)
    assert len(told) == len(cases) * len(COMMANDS)
    for case, command, status, out, errors in told:
        assert status, (case, command, out, errors)
        assert "Traceback" not in errors
        assert "Permission denied" in out + errors, (case, command, out, errors)
    for case, command, _, out, _ in told:
        if command[0] == "verify" and not case.endswith("closed"):
            assert "CANNOT BE CHECKED" in out, (case, command, out)
            assert "sound: 2 tracks in 1 segment," in out, (
                case,
                command,
                out,
            )  # the other one is checked all the same


def test_a_folder_of_stores_that_may_not_be_listed(place: Path) -> None:
    Store.create(place / "cache/one", samples.spec()).commit(samples.tracks(samples.spec(), [0]))
    open_to_all(place / "cache")
    (place / "cache").chmod(0o311)
    (place / "inside").mkdir()
    shutil.copytree(place / "cache", place / "inside/cache")
    (place / "inside").chmod(0)
    told = run_as_somebody([place / "cache", place / "inside/cache"], [*COMMANDS], place)
    for case, command, status, out, errors in told:
        assert status, (case, command)
        assert "Permission denied" in out + errors, (case, command, out, errors)
        assert "Traceback" not in errors


def test_lost_and_found_is_no_store(place: Path) -> None:
    """The root of a file system holds a folder that only root may enter."""
    Store.create(place / "cache/one", samples.spec()).commit(samples.tracks(samples.spec(), [0]))
    open_to_all(place / "cache")
    (place / "cache/lost+found").mkdir(mode=0)
    (told,) = run_as_somebody([place / "cache"], [["verify", "--full"]], place)
    assert told[2] == 0, told
