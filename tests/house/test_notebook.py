"""The notebooks ask for commands and options that there are; with BEATMETER_FULL=1 they run from top to
bottom, on the embedded backbone and a few clips. Each of their commands has tests of its own."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import click
import nbclient
import nbformat
import pytest
from waiting import PATIENCE

from beatmeter.cli import cli

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FULL = bool(os.environ.get("BEATMETER_FULL"))
LAYERS = {
    "SOURCE": "beatmeter",
    "WORKS": 12,
    "VERSIONS": 3,
    "SETTINGS": {"features.backbone": "embedded", "features.poolings": "stats"},
    "TRAINING": {"training.epochs": 2, "training.batch": 8, "training.accumulation": 1},
    "SEEDS": "0-1",
    "JOBS": 1,
}
EXPERIMENT = {
    "SOURCE": "beatmeter",
    "CLIPS": 60,
    "SECONDS": 5,
    "SETTINGS": {
        "features.backbone": "embedded",
        "head.poolings": "lag",
        "head.channels": 8,
        "features.window": 1,
    },
    "FROZEN": {"training.epochs": 3, "training.head_lr": 3e-3, "training.batch": 2},
    "LORA": {
        "adapter.lora_layers": 1,
        "training.epochs": 1,
        "training.head_lr": 3e-3,
        "training.batch": 4,
        "training.accumulation": 1,
        "limit": 16,
    },
    "SEEDS": "0-1",
    "JOBS": 1,
    "SOUNDS": 14,
}


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_run_here() -> None:
    assert {path.stem for path in NOTEBOOKS.iterdir()} == {"experiment", "layers"}


@pytest.mark.parametrize("name", ["experiment", "layers"])
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert code[0].metadata.tags == ["parameters"], "the first cell of code holds the parameters"
    assert "Parameters" in code[0].source


@pytest.mark.parametrize("name", ["experiment", "layers"])
def test_a_notebook_asks_for_commands_and_options_that_there_are(name: str) -> None:
    asked = 0
    for cell in read(name).cells:
        if cell.cell_type != "code":
            continue
        source = re.sub(r"^(\s*)%.*$", r"\1pass", cell.source, flags=re.MULTILINE)
        for call in ast.walk(ast.parse(source)):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "beatmeter"):
                continue
            words = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            command: click.Command = cli
            while isinstance(command, click.Group):
                found = command.get_command(click.Context(command), words.pop(0))
                assert found is not None, ast.unparse(call)
                command = found
            known = {
                option
                for parameter in command.params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert {word for word in words if word.startswith("--")} <= known, ast.unparse(call)
            asked += 1
    assert asked >= 5


def played(name: str, fast: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """The notebook after it has run with `fast` parameters and `folder`/disk as its disk, and what it
    printed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = read(name)
    at = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    values = {**fast, "DATA": "", "DISK": str(folder / "disk")}
    named = set(re.findall(r"^([A-Z]+)(?:, ([A-Z]+))? = ", notebook.cells[at].source, re.MULTILINE))
    assert {name for pair in named for name in pair if name} == set(values), (
        "what is set here are the parameters"
    )
    notebook.cells.insert(
        at + 1, nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    )
    client = nbclient.NotebookClient(
        notebook,
        timeout=int(PATIENCE),
        startup_timeout=int(PATIENCE),
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    printed = "".join(
        out.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.output_type == "stream"
    )
    return notebook, printed


@pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_experiment_runs_and_leaves_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, printed = played("experiment", EXPERIMENT, tmp_path, monkeypatch)
    disk = tmp_path / "disk"
    assert "LoRA" in printed
    assert (disk / "comparison.html").stat().st_size > 10_000
    for run in (disk / "runs" / "lora", disk / "runs" / "frozen" / "seed-0"):
        assert (run / "report.html").exists()
        assert (run / "calibration.json").exists()
        assert (run / "last.safetensors").exists()
    figures = [out for out in notebook.cells[-2].outputs if "image/svg+xml" in out.get("data", {})]
    assert len(figures) == 6


@pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_layers_are_probed_and_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = played("layers", LAYERS, tmp_path, monkeypatch)
    for word in ("centroid", "null_level", "concat", "mAP"):
        assert word in printed
    assert (tmp_path / "disk" / "probes" / "probe.html").stat().st_size > 10_000
