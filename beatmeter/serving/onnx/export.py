"""A model as two ONNX graphs, what a program must know beside them, and the proof that they hear the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beatmeter import __version__
from beatmeter.errors import RunError, shown
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.serving.models import EnsembleFolder, find_model
from beatmeter.serving.onnx.classes import ClassGraphs
from beatmeter.serving.onnx.curves import BARS_FILE, CurveGraphs
from beatmeter.serving.onnx.parity import Parity
from beatmeter.serving.onnx.writing import ABOUT, BACK, FRONT, PROGRAM, graphs_in, require_exporter
from beatmeter.serving.tempo import BEATS

FORMAT = 1
WRITTEN = {FRONT, BACK, ABOUT, PROGRAM, BARS_FILE}
Graphs = ClassGraphs | CurveGraphs
Report = Callable[[str], object]


def export(model: StrPath | None, out: StrPath, report: Report = print) -> dict[str, Any]:
    """Write the folder `out`, see docs/export.md, and return what model.json says.

    `model` is a run, an ensemble, the name of a model that ships, or `beats`. Nothing is left in `out` unless
    all cases of `parity` agree with the model in torch. Raises RunError for models that have no such graphs
    and for graphs that hear something else, ConfigError where a package lacks.
    """
    require_exporter()
    out = as_path(out)
    folder = BEATS if str(model) == BEATS.name and not as_path(BEATS.name).exists() else find_model(model)
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - WRITTEN):
        raise RunError(f"{shown(out)} holds something else", "Choose a new folder with --out.")
    graphs: Graphs = CurveGraphs(folder) if gives_curves(folder) else ClassGraphs(folder)
    report(f"{folder.name}: writing {FRONT} and {BACK}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        draft = Path(name)
        graphs.write(draft)
        about = {"format": FORMAT, "version": __version__, **graphs.about(), "graphs": graphs_in(draft)}
        write_json(draft / ABOUT, about)
        report("comparing what they hear with torch")
        parity = require_same(graphs.compare(draft))
        about["parity"] = parity.to_json()
        out.mkdir(exist_ok=True)
        for file in (FRONT, BACK):
            atomic.write_bytes(out / file, (draft / file).read_bytes())
        for file, content in graphs.programs.items():
            atomic.write_bytes(out / file, content)
        write_json(out / ABOUT, about)  # last: it has the checksums of the others
    return about


def gives_curves(folder: Path) -> bool:
    """Whether this is a run of a task on frames."""
    if EnsembleFolder(folder).exists():
        return False
    return RunFolder.open(folder).config().task.name in ("beats", "structure")


def require_same(parity: Parity) -> Parity:
    """Raise RunError when the graphs are too far from torch."""
    if not parity.holds:
        worst = max(parity.differences, key=lambda name: parity.differences[name])
        changed = f", and the answer changes for {', '.join(parity.changed)}" if parity.changed else ""
        raise RunError(
            f"the graphs differ from the model in torch by {parity.largest:.1e} ({worst}), "
            f"{parity.tolerance:g} is allowed{changed}",
            "Nothing was written. The exporter of the installed torch and onnxscript may be at fault: see "
            "docs/export.md.",
        )
    return parity
