"""What is given away works by itself: the source archive builds the wheel, the wheel holds what it needs
and nothing else, and its `beatmeter predict` answers from a folder of its own. The Dockerfile names what is
there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import soundfile

from beatmeter import __version__
from beatmeter.datasets.synth import render

ROOT = Path(__file__).resolve().parents[2]
BUILD = (
    "import sys; from setuptools import build_meta as b; "
    "print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def built(kind: str, source: Path, out: Path) -> Path:
    """The archive of a kind (sdist, wheel) of the project in `source`."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive of a copy of this tree, and the wheel that is built from what it holds alone."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "beatmeter", copy / "beatmeter", ignore=LEFT_OUT)
    for name in ("tests", "benchmarks", "tools"):  # there to be left out
        (copy / name).mkdir()
        (copy / name / "test_nothing.py").write_text("")
    sdist = built("sdist", copy, out)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return sdist, built("wheel", unpacked / f"beatmeter-{__version__}", out)


def test_the_wheel_holds_all_of_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    sdist, wheel = archives
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "beatmeter").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package - inside == set(), "name it in pyproject.toml, [tool.setuptools.package-data]"
    others = {name for name in inside - package if not re.match(r"beatmeter-[^/]+\.dist-info/", name)}
    assert others == set()
    assert {
        "beatmeter/models/models.json",
        "beatmeter/recipes/spectral-lag.toml",
        "beatmeter/py.typed",
    } <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "tools/"))]


def test_the_wheel_answers_from_a_folder_of_its_own(archives: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--quiet"]
    subprocess.run([*pip, "--target", str(place), str(archives[1])], check=True, capture_output=True)
    clip = render(3, meter=3, kind="single", seconds=12.0)
    soundfile.write(tmp_path / "song.wav", clip.audio, clip.sample_rate)
    environment = {**os.environ, "PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, str(place / "bin" / "beatmeter"), "predict", "song.wav"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    name, meter, *_ = done.stdout.rstrip("\n").split("\t")
    assert name == "song.wav"
    assert meter in ("3", "4", "5", "7", "9", "11", "none")
    code = "import beatmeter; print(beatmeter.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(place), "the wheel was asked, not this tree"


def test_the_dockerfile_installs_what_is_there_as_somebody_without_rights() -> None:
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    steps = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    words = [step[0] for step in steps]
    assert words[0] == "FROM" or words[0] == "ARG"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = tuple(map(int, re.findall(r"\d+", project["requires-python"])))
    images = [rest for word, rest in steps if word == "FROM"]
    assert all(
        tuple(map(int, re.findall(r"python:(\d+)\.(\d+)-slim", image)[0])) >= least for image in images
    )
    for word, rest in steps:
        if word == "COPY" and "--from" not in rest:
            assert [name for name in rest.split()[:-1] if not (ROOT / name).exists()] == []
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    # an index in place of PyPI lacks the pinned versions of what torch needs
    assert [line for line in installs if re.search(r"(?<!extra)-index-url", line)] == []
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert dict(steps)["ENTRYPOINT"] == '["beatmeter"]'
    assert "beatmeter" in project["scripts"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "data", "runs"} <= set(ignored)
