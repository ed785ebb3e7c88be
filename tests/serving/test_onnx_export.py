"""Exported graphs hear what the model hears in torch, without torch; what does not is never written.

BEATMETER_FULL=1 compares every model that has graphs on all of the real music.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from barepython import said_without_us
from click.testing import CliRunner
from familyfolders import write_family
from hubfolders import write_hub_folder
from safetensors.torch import load_file, save_file
from scipy.special import expit

from beatmeter.audio.decode import load
from beatmeter.cli import cli
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import ConfigError, RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.calibration.maps import ScoreMap
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.model import FeatureModel
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.serving.answer import Scored
from beatmeter.serving.models import EnsembleFolder, find_model, shipped_models
from beatmeter.serving.onnx import parity, writing
from beatmeter.serving.onnx.classes import ClassGraphs
from beatmeter.serving.onnx.export import ABOUT, BACK, FRONT, PROGRAM, export
from beatmeter.serving.onnx.graphs import Back, Front, Mixture, _require_exportable, members_of
from beatmeter.serving.onnx.hear import Model
from beatmeter.serving.onnx.parity import TOLERANCE, answer_of, compare, difference, music
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import EnsembleScorer
from beatmeter.settings import RunConfig
from beatmeter.tasks import open_task

FULL = bool(os.environ.get("BEATMETER_FULL"))
RATE = 24_000


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
    assert measured["cases"]["silence"] <= TOLERANCE
    assert said["classes"] == ["3", "4", "5", "7", "9", "11"]
    assert said["chunk"]["length"] - said["chunk"]["hop"] == said["chunk"]["context"] == 80


def test_the_program_hears_the_same_where_torch_cannot_be_imported(
    exported: Path, predictor: Predictor, tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    soundfile.write(song, np.stack([music(12.0, 44_100), music(12.0, 44_100, seed=5)], axis=1), 44_100)
    said = said_without_us(exported / PROGRAM, song, cwd=tmp_path)
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
    def spoil(graphs: ClassGraphs, folder: Path) -> None:
        for name in (FRONT, BACK):
            (folder / name).write_bytes((exported / name).read_bytes())
        graph = onnx.load(folder / FRONT)
        tables = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        table = max(tables, key=lambda t: int(np.prod(t.dims)))
        values = np.roll(onnx.numpy_helper.to_array(table), 1, axis=-1)
        table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
        onnx.save(graph, folder / FRONT)

    monkeypatch.setattr(ClassGraphs, "write", spoil)
    monkeypatch.setattr(parity, "LENGTHS", (5.0,))
    with pytest.raises(RunError, match=r"differ from the model in torch by .*1e-05 is allowed"):
        export("spectral-lag", tmp_path / "out", report=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("spectral-lgg", "Did you mean 'spectral-lag'"),
    ],
)
def test_models_without_such_graphs_are_refused(model: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=reason):
        export(model, tmp_path / "out", report=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        export("spectral-lag", tmp_path, report=lambda line: None)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writing, "NEEDED", ("onnx", "onnx_of_another_world"))
    with pytest.raises(ConfigError, match=r"onnx_of_another_world.*pip install 'beatmeter\[onnx\]'"):
        export("spectral-lag", tmp_path / "out")


def test_the_command_says_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("beatmeter.serving.onnx.export.export", lambda model, out, report: about(exported))
    done = CliRunner().invoke(cli, ["export", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "no answer changed" in done.output


def test_an_ensemble_is_one_pair_of_graphs(clip: np.ndarray) -> None:
    """As modules, before anything is written; BEATMETER_FULL writes it."""
    predictor = Predictor.load("ensemble-long", torch.device("cpu"))
    members = members_of(predictor)
    front, back = Front(members).eval(), Back(members, predictor).eval()
    with torch.inference_mode():
        chunk = members[0].spec.chunk
        starts = range(0, len(clip) - chunk.length + 1, chunk.hop)
        waves = torch.from_numpy(np.stack([clip[a : a + chunk.length] for a in starts]))
        states = front(waves)
        assert states.shape[1:] == (1, 375, back.states[1])
        rows = torch.zeros(sum(back.sizes))
        joined = states.transpose(0, 1).flatten(1, 2)
        scores, calibrated, heard, _, _ = back(
            joined, torch.zeros(1, dtype=torch.int64), rows, torch.zeros(1)
        )
    audio = clip[: len(starts) * chunk.hop + 80]
    told = predictor.predict(audio, RATE)
    assert np.abs(predictor.scorer.hear(audio).scores - scores.numpy()).max() <= TOLERANCE
    assert np.abs(told.scores - calibrated.numpy()).max() <= TOLERANCE
    assert abs((told.heard or 0) - heard.item()) <= TOLERANCE


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return music(10.1, RATE)


@pytest.mark.parametrize("method", ["mean", "stack"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_members_are_mixed_as_in_the_ensemble(method: str, calibrated: bool) -> None:
    rng = np.random.default_rng(3)
    folder = EnsembleFolder(find_model("ensemble"))
    own = folder.ensemble()
    names, classes = own.members, own.classes
    draws = rng.normal(size=(len(classes), 1 + len(names)))
    table = {
        c: dict(zip(("intercept", *names), row.tolist(), strict=True))
        for c, row in zip(classes, draws, strict=True)
    }
    scorer = EnsembleScorer.__new__(EnsembleScorer)
    scorer.ensemble = replace(own, method=method, coefficients=table)
    scorer.classes = classes
    scorer._members = dict.fromkeys(names)
    kinds = ("none", "temperature", "platt", "isotonic")
    curve = {"at": [0.1, 0.3, 0.3, 0.9], "value": [0.05, 0.2, 0.4, 0.95]}
    parameters = ({}, {"slope": 1.4}, {"slope": 0.7, "intercept": -0.3}, curve)
    maps = tuple(ScoreMap(k, p) for k, p in zip(kinds, parameters, strict=True))
    base = Calibration.load(RunFolder(find_model("spectral-lag")).calibration)
    each = replace(base, maps=(*maps, *maps[:2]))
    scorer.calibrations = dict.fromkeys(names, each) if calibrated else {}
    outputs = [rng.normal(scale=8, size=len(classes)) for _ in names]
    said = {n: Scored(expit(o), np.zeros(0)) for n, o in zip(names, outputs, strict=True)}
    mixed = Mixture(scorer)([torch.tensor(o, dtype=torch.float32) for o in outputs])
    assert np.abs(scorer.join(said).scores - mixed.numpy()).max() < 2e-6


HEADS = {
    "stats": {"features": {"backbone": "spectral", "poolings": ("stats",)}, "head": {"poolings": ("stats",)}},
    "stats of a store with lag": {
        "features": {"backbone": "spectral", "poolings": ("stats", "lag"), "window": 2},
        "head": {"poolings": ("stats",)},
    },
    "lag of mert": {"features": {"backbone": "MERT", "poolings": ("lag",)}, "head": {"poolings": ("lag",)}},
    "stats of mert": {
        "features": {
            "backbone": "MERT",
            "poolings": ("stats",),
            "layers": "2,3",
            "statistics": ("mean", "max", "std"),
        },
        "head": {"poolings": ("stats",)},
    },
    "lag of wavlm": {"features": {"backbone": "wavlm", "poolings": ("lag",)}, "head": {"poolings": ("lag",)}},
    "rhythm": {
        "features": {"backbone": "embedded-hard", "poolings": ("rhythm",)},
        "head": {"poolings": ("rhythm",)},
    },
    "lora": {
        "features": {"backbone": "MERT", "poolings": ("lag",)},
        "head": {"poolings": ("lag",)},
        "adapter": {"r": 2},
    },
}


@pytest.mark.parametrize("name", HEADS if FULL else ["stats of mert", "rhythm"])
def test_heads_of_any_run_have_graphs(name: str, tmp_path: Path) -> None:
    synthesise(tmp_path / "music", 8, SynthPlan(seconds=6.0, val=0.3))
    values = {part: dict(own) for part, own in HEADS[name].items()}
    if values["features"]["backbone"] == "MERT":
        folder = write_hub_folder(tmp_path / "mert", num_hidden_layers=3, weights="model.safetensors")
        _keep_scale(folder)
        values["features"]["backbone"] = str(folder)
    if values["features"]["backbone"] == "wavlm":
        values["features"]["backbone"] = str(write_family(tmp_path / "wavlm", "wavlm"))
    values["data"] = {"path": str(tmp_path / "music")}
    values["features"]["cache"] = str(tmp_path / "cache")
    values["head"] |= {"channels": 8, "hidden": 16, "dilations": (1, 2)}
    values["training"] = {"epochs": 1, "batch": 4, "accumulation": 1}
    run(
        change(RunConfig(), {**values, "regime": "streamed" if "adapter" in values else "frozen"}),
        tmp_path / "run",
        torch.device("cpu"),
        predict=["val"],
        report=lambda text: None,
    )
    about_it = export(tmp_path / "run", tmp_path / "out", report=lambda line: None)
    assert about_it["parity"]["largest"] <= TOLERANCE
    assert about_it["window"]["chunks"] == (1 if "stats" in name else about_it["window"]["chunks"])


def _keep_scale(folder: Path) -> None:
    """Scale convolutions so that seven of them neither fade nor grow, as in a trained front end. Without it
    silence comes out as 3e-5, and layer norms make of its roundings states that are 5e-6 from exact
    arithmetic, in torch as in a graph, where all that lag pooling hears of silence is 5e-3 high."""
    file = folder / "model.safetensors"
    state = load_file(file)
    for name, value in state.items():
        if "conv_layers" in name and name.endswith("conv.weight"):
            value *= (2 / value[0].numel()) ** 0.5 / value.std()
    save_file(state, file)


def test_a_head_over_lag_and_stats_is_refused(clips: Path, config: RunConfig, tmp_path: Path) -> None:
    spec = FeatureModel(config.features, torch.device("cpu")).spec
    head = open_task(config).head(spec)
    with pytest.raises(RunError, match="no window is both"):
        _require_exportable(spec, head, "multilabel", "track")


def test_tables_are_made_smaller_only_where_nothing_changes(tmp_path: Path) -> None:
    exact = np.arange(1024, dtype=np.float32).reshape(32, 32) / 8
    rounded = exact + np.float32(1e-6) * np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    tensors = {"exact": exact, "rounded": rounded, "large": np.full((32, 32), 1e6, np.float32)}
    helper = onnx.helper
    nodes = [helper.make_node("Sum", [*tensors, "x"], ["y"])]
    tensors["unread"] = rounded
    both = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [32, 32]) for n in ("x", "y")]
    tables = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "sum", both[:1], both[1:], tables)
    file = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    before, x = file.stat().st_size, np.ones((32, 32), np.float32)
    wanted = onnxruntime.InferenceSession(file).run(None, {"x": x})[0]
    writing.slim(file)
    assert before - 6000 > file.stat().st_size > before - 6300, (
        "half of one table of three, and one that nobody reads"
    )
    assert np.array_equal(onnxruntime.InferenceSession(file).run(None, {"x": x})[0], wanted)


MODELS = tuple(shipped_models()["models"]) if FULL else ("spectral-lag",)


@pytest.mark.parametrize("name", MODELS)
def test_real_music_gets_the_same_answers(name: str, real_data: Path, exported: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "meter-dev").rglob("*.ogg"))
    if name != "spectral-lag":
        export(name, tmp_path / name, report=lambda line: None)
    told_by, said_by = Predictor.load(name), Model(exported if name == "spectral-lag" else tmp_path / name)
    apart = []
    for file in files if FULL else files[:: max(1, len(files) // 4)]:
        wave = load(file, RATE)
        told, said = told_by.predict(wave, RATE), said_by.hear(wave)
        apart.append(difference(None, told, said))
        assert apart[-1] <= TOLERANCE, file
        assert answer_of(told) == (said["meter"], said["sure"], said["second"]), file
    print(f"{name}: {len(apart)} clips, {max(apart):.1e} at most, no answer changed")


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
    assert len(found.changed) == len(found.differences)
