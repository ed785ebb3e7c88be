"""Exported graphs hear what the model hears in torch, without torch; what does not is never written.

BEATMETER_FULL=1 compares every model that has graphs on all of the real music.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from click.testing import CliRunner

from beatmeter.audio.decode import load
from beatmeter.cli import cli
from beatmeter.errors import ConfigError, RunError
from beatmeter.serving.onnx import export as exporting
from beatmeter.serving.onnx import parity
from beatmeter.serving.onnx.export import ABOUT, BACK, FRONT, PROGRAM, export
from beatmeter.serving.onnx.hear import Model
from beatmeter.serving.onnx.parity import TOLERANCE, answer_of, compare, difference, music
from beatmeter.serving.predictor import Predictor

FULL = bool(os.environ.get("BEATMETER_FULL"))
RATE = 24_000
WITHOUT = """
import runpy, sys
for name in ("torch", "beatmeter", "transformers", "scipy", "librosa"):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


pytestmark = pytest.mark.xdist_group("onnx")  # one export for all


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("spectral-lag", torch.device("cpu"))


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return Model(exported)


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / ABOUT).read_text())


def test_the_folder_says_what_it_holds_and_how_near_it_is(exported: Path) -> None:
    said = about(exported)
    assert sorted(p.name for p in exported.iterdir()) == sorted([FRONT, BACK, ABOUT, PROGRAM])
    for graph in said["graphs"].values():
        content = (exported / graph["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (graph["bytes"], graph["sha256"])
    measured = said["parity"]
    assert 0 < measured["largest"] <= TOLERANCE
    assert not measured["answers_changed"]
    assert {"5 s", "7.3 s", "12 s", "30 s", "65 s", "one dead channel", "44.1 kHz"} <= set(measured["cases"])
    assert list(measured["silence"]) == ["silence"]
    assert said["classes"] == ["3", "4", "5", "7", "9", "11"]
    assert said["chunk"]["length"] - said["chunk"]["hop"] == said["chunk"]["context"] == 80


def test_the_program_hears_the_same_where_torch_cannot_be_imported(
    exported: Path, predictor: Predictor, tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    soundfile.write(song, np.stack([music(12.0, 44_100), music(12.0, 44_100, seed=5)], axis=1), 44_100)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(exported / PROGRAM), str(song)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    said = json.loads(done.stdout)
    ((_, told),) = predictor.predict_files(song)
    assert difference(None, told, said) <= TOLERANCE
    assert answer_of(told) == (said["meter"], said["sure"], said["second"])


def test_the_program_refuses_graphs_of_another_export(exported: Path, tmp_path: Path) -> None:
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / BACK).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SystemExit, match=r"back\.onnx is not the file"):
        Model(tmp_path)


def test_too_little_audio_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"0\.50 s"):
        model.hear(np.zeros(RATE // 2, np.float32))


def test_a_table_with_wrong_numbers_is_never_written(
    monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path
) -> None:
    def spoil(front: Any, back: Any, folder: Path) -> None:
        for name in (FRONT, BACK):
            (folder / name).write_bytes((exported / name).read_bytes())
        graph = onnx.load(folder / FRONT)
        tables = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        table = max(tables, key=lambda t: int(np.prod(t.dims)))
        values = np.roll(onnx.numpy_helper.to_array(table), 1, axis=-1)
        table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
        onnx.save(graph, folder / FRONT)

    monkeypatch.setattr(exporting, "write_graphs", spoil)
    monkeypatch.setattr(parity, "LENGTHS", (5.0,))
    with pytest.raises(RunError, match=r"differ from the model in torch by .*1e-05 is allowed"):
        export("spectral-lag", tmp_path / "out", report=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("ensemble", "an ensemble is 3 models"),
        ("beats", "which hears beats"),
        ("spectral-lgg", "Did you mean 'spectral-lag'"),
    ],
)
def test_models_without_such_graphs_are_refused(model: str, reason: str, tmp_path: Path) -> None:
    name = str(exporting.find_model("spectral-lag").parent / "beats") if model == "beats" else model
    with pytest.raises(RunError, match=reason):
        export(name, tmp_path / "out", report=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        export("spectral-lag", tmp_path, report=lambda line: None)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "onnx_of_another_world"))
    with pytest.raises(ConfigError, match=r"onnx_of_another_world.*pip install 'beatmeter\[onnx\]'"):
        export("spectral-lag", tmp_path / "out")


def test_the_command_says_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("beatmeter.serving.onnx.export.export", lambda model, out, report: about(exported))
    done = CliRunner().invoke(cli, ["export", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "no answer changed" in done.output


def test_real_music_gets_the_same_answers(
    real_data: Path, exported: Path, predictor: Predictor, model: Model, tmp_path: Path
) -> None:
    files = sorted((real_data / "meter-dev").rglob("*.ogg"))
    pairs = [(predictor, model)]
    if FULL:
        for name in ("embedded-lag", "embedded-lora"):
            export(name, tmp_path / name, report=lambda line: None)
            pairs.append((Predictor.load(name), Model(tmp_path / name)))
    for told_by, said_by in pairs:
        for file in files if FULL else files[:: max(1, len(files) // 4)]:
            wave = load(file, RATE)
            told, said = told_by.predict(wave, RATE), said_by.hear(wave)
            assert difference(None, told, said) <= TOLERANCE, file
            assert answer_of(told) == (said["meter"], said["sure"], said["second"]), file


def test_comparison_tells_a_changed_answer(
    predictor: Predictor, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LENGTHS", (5.0,))

    class Contrary:
        states, answer = staticmethod(model.states), staticmethod(model.answer)

        @staticmethod
        def judge(found: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
            return {**model.judge(found, seconds), "meter": "13"}

        @classmethod
        def hear(cls, wave: np.ndarray) -> dict[str, Any]:
            return model.hear(wave) | {"sure": None}

    found = compare(predictor, Contrary())
    assert not found.holds
    assert len(found.changed) == len(found.differences) + len(found.silent)
