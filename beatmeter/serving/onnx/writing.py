"""Modules as ONNX files, by torch's exporter."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from beatmeter.errors import ConfigError, RunError

FRONT, BACK, ABOUT, PROGRAM = "front.onnx", "back.onnx", "model.json", "hear.py"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
SMALL = 256  # numbers in a table that is not worth storing in half


def require_exporter() -> None:
    """Raise ConfigError where what writes and checks graphs is not installed."""
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export needs {' and '.join(missing)}, which is not installed", "pip install 'beatmeter[onnx]'"
        )


def write_graph(
    module: nn.Module,
    given: tuple[torch.Tensor, ...],
    file: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Any],
) -> None:
    """One graph. The exporter must not optimise: what it then writes of the spectra is wrong, and nothing
    says so (torch 2.13, onnxscript 0.7.2)."""
    with _quietly():
        try:
            traced = torch.export.export(
                module,
                given,
                dynamic_shapes=dict(dynamic),
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
        except RunError:
            raise
        except Exception as error:  # whatever it is: the exporter has no error of its own for a model
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise RunError(
                f"torch cannot write {file.name} of this model: {said.strip()[:160]}",
                "Backbones that can be exported: spectral, embedded, MERT, HuBERT, wav2vec 2.0, WavLM, "
                "data2vec-audio, UniSpeech.",
            ) from None
        assert program is not None
        program.save(str(file), external_data=False)
    slim(file)


def slim(file: Path) -> None:
    """Let go of tables of a graph that no node reads and of what the exporter notes of its own code at every
    node, and keep others in 16 bits where no number of them
    changes, as in weights that were stored so: a node makes 32 bits of them again when the graph is
    loaded."""
    onnx: Any = import_module("onnx")  # which only the extra has
    model = onnx.load(file)
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    tables = [table for table in graph.initializer if table.name in read]
    casts = [cast for cast in map(_halved, tables) if cast is not None]
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tables)
    _without_notes(graph)
    onnx.save(model, file)


def _without_notes(graph: Any) -> None:
    """Neither stack traces nor names of modules at the nodes of a graph and of what loops in it."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _without_notes(attribute.g)


def _halved(table: Any) -> Any:
    """The node that makes 32 bits of a table that was brought to 16; None, and the table as it was, where
    that would change it."""
    onnx: Any = import_module("onnx")
    if table.data_type != onnx.TensorProto.FLOAT or np.prod(table.dims) < SMALL:
        return None
    values, name = onnx.numpy_helper.to_array(table), table.name
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), values):
        return None
    table.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
    return onnx.helper.make_node("Cast", [table.name], [name], to=onnx.TensorProto.FLOAT)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter speaks of its own affairs on every channel there is."""
    log = logging.getLogger("torch")
    before = log.level
    said = io.StringIO()  # the exporter prints the whole graph when it fails
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)


def graphs_in(folder: Path) -> dict[str, Any]:
    """What model.json says of both graphs."""
    return {
        graph: {
            "file": file,
            "bytes": (folder / file).stat().st_size,
            "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest(),
        }
        for graph, file in (("front", FRONT), ("back", BACK))
    }
