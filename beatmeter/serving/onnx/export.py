"""A model as two ONNX graphs, what a program must know beside them, and the proof that they hear the same."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from beatmeter import __version__
from beatmeter.errors import ConfigError, RunError, shown
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.timeline import DURATION, WINDOW
from beatmeter.features.pooling import window_chunks
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.serving.judge import SHORTEST
from beatmeter.serving.models import find_model
from beatmeter.serving.onnx.graphs import Back, Front
from beatmeter.serving.onnx.parity import Parity, compare
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import RunScorer
from beatmeter.serving.streaming import HOP, MINIMUM

FORMAT = 1
FRONT, BACK, ABOUT, PROGRAM = "front.onnx", "back.onnx", "model.json", "hear.py"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
PRESENT = 0.5  # probability of a meter below which none is heard, see `Answer.meter`
Report = Callable[[str], object]


def require_exporter() -> None:
    """Raise ConfigError where what writes and checks graphs is not installed."""
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export needs {' and '.join(missing)}, which is not installed", "pip install 'beatmeter[onnx]'"
        )


def export(model: StrPath | None, out: StrPath, report: Report = print) -> dict[str, Any]:
    """Write the folder `out`, see docs/export.md, and return what model.json says.

    Nothing is left in `out` unless all cases of `parity` agree with the model in torch. Raises RunError for
    models that have no such graphs and for graphs that hear something else, ConfigError where a package
    lacks.
    """
    require_exporter()
    out, folder = as_path(out), find_model(model)
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - {FRONT, BACK, ABOUT, PROGRAM}):
        raise RunError(f"{shown(out)} holds something else", "Choose a new folder with --out.")
    predictor = Predictor.load(folder, torch.device("cpu"))
    scorer = _single(predictor)
    front, back = Front(scorer.encoder.encode).eval(), Back(scorer, predictor.judge.calibration).eval()
    report(f"{folder.name}: writing {FRONT} and {BACK}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        draft = Path(name)
        write_graphs(front, back, draft)
        about = describe(folder.name, predictor, back, draft)
        write_json(draft / ABOUT, about)
        shutil.copyfile(Path(__file__).with_name(PROGRAM), draft / PROGRAM)
        report("comparing what they hear with torch")
        parity = check(predictor, draft)
        about["parity"] = parity.to_json()
        write_json(draft / ABOUT, about)
        out.mkdir(exist_ok=True)
        for file in (FRONT, BACK, PROGRAM, ABOUT):  # the description last: it has the checksums of the others
            atomic.write_bytes(out / file, (draft / file).read_bytes())
    return about


def _single(predictor: Predictor) -> RunScorer:
    members = predictor.scorer.members
    if len(members) > 1:
        raise RunError(
            f"an ensemble is {len(members)} models, and two graphs hold one",
            f"Export a member: {', '.join(members)}.",
        )
    return next(iter(members.values()))


def write_graphs(front: Front, back: Back, folder: Path) -> None:
    """Both graphs, by torch's exporter. It must not optimise: what it then writes of the spectra is wrong,
    and nothing says so (torch 2.13, onnxscript 0.7.2)."""
    spec = front.encoder.spec
    chunk = spec.chunk
    audio = torch.zeros(2, chunk.length)
    with torch.inference_mode():
        states = front(audio)
    batch, samples = torch.export.Dim("chunk", min=1), torch.export.Dim("sample", min=chunk.minimum)
    _write(front, (audio,), folder / FRONT, ["audio"], ["states"], {"audio": {0: batch, 1: samples}})
    frames = torch.export.Dim("frame", min=(chunk.minimum - spec.frame_span) // spec.frame_hop + 1)
    given = (states[0], torch.zeros(1, dtype=torch.int64), torch.zeros(sum(back.sizes)), torch.zeros(1))
    _write(
        back,
        given,
        folder / BACK,
        ["states", "first", "rows", "frames"],
        ["scores", "calibrated", "heard", "rows_out", "frames_out"],
        {"states": {1: frames}, "first": None, "rows": None, "frames": None},
    )


def _write(
    module: nn.Module,
    given: tuple[torch.Tensor, ...],
    file: Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: dict[str, Any],
) -> None:
    with _quietly():
        try:
            traced = torch.export.export(
                module,
                given,
                dynamic_shapes=dynamic,
                prefer_deferred_runtime_asserts_over_guards=True,  # it cannot prove that blocks fill a wave
            )
            program = torch.onnx.export(
                traced,
                input_names=inputs,
                output_names=outputs,
                dynamo=True,
                optimize=False,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever it is: the exporter has no error of its own for a model
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise RunError(
                f"torch cannot write {file.name} of this model: {said.strip()[:160]}",
                "Backbones of our own encoder can be exported: spectral, embedded, MERT and HuBERT.",
            ) from None
        assert program is not None
        program.save(str(file), external_data=False)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter speaks of its own affairs on every channel there is."""
    log = logging.getLogger("torch")
    before = log.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)


def describe(name: str, predictor: Predictor, back: Back, folder: Path) -> dict[str, Any]:
    """model.json but for the parity, of graphs that lie in `folder`."""
    scorer = _single(predictor)
    spec, calibration = scorer.encoder.encode.spec, predictor.judge.calibration
    chunk = spec.chunk
    second = predictor.thresholds
    return {
        "format": FORMAT,
        "model": name,
        "version": __version__,
        "classes": list(predictor.classes),
        "sample_rate": chunk.sample_rate,
        "chunk": {
            "length": chunk.length,
            "hop": chunk.hop,
            "context": chunk.length - chunk.hop,
            "tail": chunk.tail_min,
            "shortest": chunk.minimum,
        },
        "frame": {
            "hop": spec.frame_hop,
            "span": spec.frame_span,
            "rate": spec.frame_rate,
            "per_chunk": (chunk.length - spec.frame_span) // spec.frame_hop + 1,
        },
        "window": {"chunks": window_chunks(spec)},
        "states": {"layers": len(Front(scorer.encoder.encode).layers), "dim": spec.dim},
        "rows": sum(back.sizes),
        "thresholds": {
            "presence": PRESENT,
            "sure": calibration.sure.threshold
            if calibration and calibration.sure and calibration.presence
            else None,
            "shortest_sure": SHORTEST,
            "second": None if second is None else dict(zip(predictor.classes, second.tolist(), strict=True)),
        },
        "calibration": None
        if calibration is None
        else {
            "maps": {
                c: {"kind": m.kind, **plain(m.parameters)}
                for c, m in zip(calibration.classes, calibration.maps, strict=True)
            },
            "presence": None
            if calibration.presence is None
            else {
                "weights": list(calibration.presence.weights),
                "intercept": calibration.presence.intercept,
            },
        },
        "stream": {"window": WINDOW, "hop": HOP, "minimum": MINIMUM, "duration": DURATION},
        "backbone": asdict(scorer.encoder.encode.backbone.identity),
        "graphs": {
            graph: {
                "file": file,
                "bytes": (folder / file).stat().st_size,
                "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest(),
            }
            for graph, file in (("front", FRONT), ("back", BACK))
        },
    }


def check(predictor: Predictor, folder: Path) -> Parity:
    """How far the graphs in `folder` are from torch. Raises RunError when that is too far."""
    program = import_module("beatmeter.serving.onnx.hear")  # loads onnxruntime, which only the extra has
    parity = compare(predictor, program.Model(folder))
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
