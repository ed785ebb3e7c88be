"""What keeps the house in order: a true file map, instant help, no stray files, settings that a page
lists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import filemap
import pytest

from beatmeter.cli import cli
from beatmeter.cli.options import recipes
from beatmeter.runtime.artifacts import read_toml
from beatmeter.runtime.config import build, describe
from beatmeter.settings import RunConfig

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_map_is_true() -> None:
    assert filemap.file_map() == (ROOT / "docs" / "filemap.md").read_text(encoding="utf-8"), (
        "run `make filemap`"
    )


def test_every_module_says_in_one_line_what_it_is() -> None:
    silent = [
        str(p) for p in filemap.modules() if not filemap.summary(p) and (filemap.ROOT / p).read_text().strip()
    ]
    assert silent == []


def commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in sorted(group.commands.items()):
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", [p for p, _ in commands()], ids=" ".join)
def test_every_help_text_has_an_example(path: tuple[str, ...]) -> None:
    command = dict(commands())[path]
    assert command.help, "no help"
    assert f"beatmeter {path[0]}" in command.help, "no example"


def test_help_imports_neither_torch_nor_numpy_libraries() -> None:
    code = (
        "import sys; sys.argv = ['beatmeter', '--help']\n"
        "from beatmeter.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'sklearn', 'zarr', 'transformers', 'peft', 'librosa') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


LIGHT = (
    "schema",
    "runtime.config",
    "settings",
    "audio.chunking",
    "datasets",
    "store",
    "evaluation.metrics",
    "evaluation.diagnostics",
    "evaluation.predictions",
    "evaluation.calibration",
    "evaluation.comparison.compare",
    "evaluation.report",
)


@pytest.mark.parametrize("module", LIGHT)
def test_right_of_the_second_waist_and_below_the_first_no_torch(module: str) -> None:
    code = f"import sys, beatmeter.{module}; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_list_only_differences_and_say_what_they_are_for(name: str) -> None:
    path = recipes()[name]
    assert path.read_text().startswith("# ")
    values = read_toml(path)
    assert build(RunConfig, values, name) != RunConfig()


def test_the_settings_page_lists_every_setting() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, default, text in describe(RunConfig()):
        assert f"| `{name}` | `{default!r}` | {text} |" in page, f"{name}: run `make filemap`"


READERS = {  # who may parse by itself: the readers of our files, and whoever parses what is no file of ours
    "beatmeter/runtime/artifacts.py": "reads every file of runs, models and tables",
    "beatmeter/runtime/config.py": "settings as they are typed",
    "beatmeter/schema/features.py": "its own values, as they come back from a file",
    "beatmeter/audio/ffmpeg.py": "what ffprobe prints",
    "beatmeter/datasets/annotations/native.py": "annotations, whose faults are told by their line",
    "beatmeter/serving/onnx/hear.py": "runs without beatmeter",
    "beatmeter/serving/onnx/hear_beats.py": "the same",
    "beatmeter/store/index.py": "files of a store, in a folder or a bucket, behind their checksums",
    "beatmeter/store/journal.py": "the same",
    "beatmeter/store/mending.py": "the same",
    "beatmeter/store/segment.py": "the same",
    "beatmeter/store/store.py": "the same",
    "tools/same_numbers.py": "imports nothing of the two trees that it compares",
}


def test_our_own_files_are_parsed_by_one_reader() -> None:
    """`json` and `tomllib` take NaN, half surrogates and any depth, and their errors name no file."""
    parsing = {
        path.relative_to(ROOT).as_posix()
        for folder in ("beatmeter", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("load", "loads")
            and ast.unparse(node.value) in ("json", "tomllib")
        )
        or (isinstance(node, ast.ImportFrom) and node.module in ("json", "tomllib"))
    }
    assert parsing == set(READERS), "use read_json, read_json_lines, parse_json, read_toml"


PACES = (
    "tests/waiting.py",
    "tests/features/test_watch.py",
    "tests/features/watch_samples.py",
)  # the one place that waits, and a day's pace


def test_no_test_waits_by_the_clock() -> None:
    clock = re.compile(
        r"timeout=[0-9]|settimeout\([0-9]|wait\([0-9]|join\([0-9]|monotonic\(\)|perf_counter\(\)|time\.sleep\("
    )
    tests = [
        path
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in (*PACES, "tests/house/test_house.py")
    ]
    found = [
        f"{path.name}:{n}: {line.strip()}"
        for path in tests
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if clock.search(line)
    ]
    assert found == [], "wait for the event: tests/waiting.py"


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = {re.split(r"[<>=\[; ]", w)[0].lower().replace("_", "-") for w in wanted} - {"beatmeter"}
    assert names - pinned == set()


def test_links_in_the_documents_lead_somewhere() -> None:
    dead = []
    for page in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "cache" / "README.md",
        ROOT / "data" / "README.md",
    ]:
        targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        dead += [f"{page.name}: {t}" for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert dead == []


def test_files_that_the_documents_name_are_there() -> None:
    named = re.compile(r"`((?:beatmeter|tests|tools|benchmarks)/[\w./-]+\.\w+)`")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    gone = [
        f"{page.name}: {name}"
        for page in pages
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert gone == []


def header_of(file: Path) -> bytes:
    """What a safetensors file says in words: its length comes first, then JSON, then weights, whose bytes may
    spell anything."""
    content = file.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def test_no_shipped_model_says_where_it_was_made() -> None:
    weights = sorted((ROOT / "beatmeter" / "models").rglob("*.safetensors"))
    assert len(weights) >= 6
    assert [file for file in weights if b"cwd" in header_of(file)] == []
