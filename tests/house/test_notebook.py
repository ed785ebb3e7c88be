"""The notebook of the whole experiment runs from top to bottom, on the embedded backbone and a few clips."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from waiting import PATIENCE

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "experiment.ipynb"
FAST = {
    "SOURCE": "beatmeter",
    "CLIPS": 60,
    "SECONDS": 5,
    "SETTINGS": {
        "features.backbone": "embedded",
        "head.poolings": "lag",
        "head.channels": 8,
        "features.window": 1,
    },
    "FROZEN": {"training.epochs": 4, "training.head_lr": 3e-3, "training.batch": 2},
    "LORA": {
        "training.epochs": 2,
        "training.head_lr": 3e-3,
        "training.batch": 4,
        "training.accumulation": 1,
        "limit": 16,
    },
    "SEEDS": "0-1",
    "JOBS": 1,
    "SOUNDS": 14,
}


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_committed_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert code[0].metadata.tags == ["parameters"], "the first cell of code holds the parameters"
    assert "Parameters" in code[0].source


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_and_leaves_reports(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    disk = tmp_path / "disk"
    at = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    values = {**FAST, "DATA": "", "DISK": str(disk)}
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
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    printed = "".join(
        out.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.output_type == "stream"
    )
    assert "LoRA" in printed
    assert (disk / "comparison.html").stat().st_size > 10_000
    for run in (disk / "runs" / "lora", disk / "runs" / "frozen" / "seed-0"):
        assert (run / "report.html").exists()
        assert (run / "calibration.json").exists()
        assert (run / "last.safetensors").exists()
    figures = [out for out in notebook.cells[-2].outputs if "image/svg+xml" in out.get("data", {})]
    assert len(figures) == 6
