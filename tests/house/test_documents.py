"""The documents are true: their terminal sessions run, the README is short and repeats them, the site builds
without a warning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//", re.IGNORECASE
)


@pytest.fixture(scope="module")
def transcripts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "tools" / "transcripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["transcripts"] = module
    spec.loader.exec_module(module)
    return module


def test_the_tutorial_prints_what_it_says(transcripts: ModuleType, tmp_path: Path) -> None:
    sessions = transcripts.played(tmp_path)
    assert len(sessions) >= 8
    wrong = [(command, printed) for command, printed in sessions if not transcripts.agree(command, printed)]
    assert wrong == [], "python tools/transcripts.py write"
    assert (tmp_path / "timeline.svg").stat().st_size > 1_000
    assert (tmp_path / "runs" / "first" / "report.html").exists()


def test_the_readme_repeats_sessions_of_the_tutorial(transcripts: ModuleType) -> None:
    shown = {
        command.line: command
        for command in transcripts.commands(transcripts.TUTORIAL.read_text(encoding="utf-8"))
    }
    repeated = transcripts.commands(README)
    assert len(repeated) == 3
    assert all(shown[command.line] == command for command in repeated)


def test_other_words_and_other_numbers_are_told(transcripts: ModuleType) -> None:
    page = (
        '```console\n$ a\n3 in a bar   sure (0.97)\n```\n```console title="figures vary with the '
        'processor"\n$ b\n...\nright 50%\nuse me\n```\n'
    )
    one, two = transcripts.commands(page)
    assert transcripts.agree(one, ("3 in a bar   sure (0.96)",))
    assert not transcripts.agree(one, ("4 in a bar   sure (0.97)",))
    assert not transcripts.agree(one, ("3 in a bar   likely (0.97)",))
    assert not transcripts.agree(one, ("3 in a bar   sure (0.60)",))
    assert not transcripts.agree(one, ())
    (three,) = transcripts.commands(f"```console\n$ c\nsha256 {'a' * 64}\n```\n")
    assert transcripts.agree(three, (f"sha256 {'b' * 64}",))
    assert not transcripts.agree(three, ("sha256 none",))
    assert transcripts.agree(two, ("epoch", "right 61%", "more", "use me"))
    assert not transcripts.agree(two, ("epoch", "error", "use me"))
    assert transcripts.rewritten(page, {"a": ("5 in a bar",), "b": ("epoch", "right 61%", "use it")}) == (
        page.replace("3 in a bar   sure (0.97)", "5 in a bar")
        .replace("50%", "61%")
        .replace("use me", "use it")
    )


def test_a_command_that_fails_is_told(transcripts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        transcripts.printed_by("exit 3", tmp_path)


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 8_000


def test_the_site_builds_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {
        page.relative_to(site).as_posix(): page.read_text(encoding="utf-8") for page in site.rglob("*.html")
    }
    assert {"index.html", "tutorial.html", "store.html", "benchmarks/index.html", "api/hearing.html"} <= set(
        pages
    )
    assert [name for name, text in pages.items() if ELSEWHERE.search(text)] == []
    assert "Predictor" in pages["api/hearing.html"]
    assert 'href="store.html' in pages["index.html"], "links out of docs/ lead to pages of the site"


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("[nowhere](nowhere.md)\n", encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(
        settings.replace("tools/outside_pages.py", str(ROOT / "tools" / "outside_pages.py")), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
