"""The beats model as graphs: modules that give its curves, chunks that lie where Python has them, a decoder
that needs numpy alone. BEATMETER_FULL=1 writes the graphs and compares them on real music."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from barepython import said_without_us
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.audio.chunking import Layout
from beatmeter.audio.decode import load
from beatmeter.schema import Track
from beatmeter.serving.curves import CurveModel
from beatmeter.serving.onnx.curves import BARS_FILE, CurveGraphs, bars_program, same_beats
from beatmeter.serving.onnx.export import PROGRAM, export, gives_curves
from beatmeter.serving.onnx.hear_beats import Model
from beatmeter.serving.onnx.parity import TOLERANCE, music
from beatmeter.serving.tempo import BEATS
from beatmeter.tasks.structure.decoding import find_bars

FULL = bool(os.environ.get("BEATMETER_FULL"))
RATE = 24_000


@pytest.fixture(scope="module")
def graphs() -> CurveGraphs:
    return CurveGraphs(BEATS)


class Modules(Model):
    """The program with the modules in place of their graphs."""

    def __init__(self, graphs: CurveGraphs) -> None:
        self.about, self.front, self.back = graphs.about(), _Run(graphs.front), _Run(graphs.back)


class _Run:
    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [self.module(*map(torch.from_numpy, given.values())).numpy()]


def told(model: CurveModel, wave: np.ndarray) -> tuple[np.ndarray, float]:
    listener = model.listen(len(wave))
    listener.push(wave)
    curves = listener.finish(Track("song", Path("song")))
    return curves.values[0], float(curves.starts[0])


def test_the_modules_give_the_curves(graphs: CurveGraphs) -> None:
    wave = music(11.7, RATE)
    wanted, start = told(graphs.model, wave)
    program = Modules(graphs)
    assert program.about["row"]["first"] == pytest.approx(start)
    found = program.curves(wave)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= TOLERANCE


@settings(max_examples=40)
@given(st.integers(24_000, 900_000))
def test_chunks_lie_where_they_lie_in_python(graphs: CurveGraphs, samples: int) -> None:
    layout, program = Layout.of(samples, graphs.spec), Model.__new__(Model)
    program.about = graphs.about()
    found = program.kept(samples)
    edges = [kept.edges(3) for kept in layout.kept]
    assert found == [(s, e[0], e[-1]) for s, e in zip(layout.starts, edges, strict=True)]
    for (_, a, b), own in zip(found, edges, strict=True):
        assert program.rows(np.arange(a, b, dtype=np.float32)[:, None])[:, 0] == pytest.approx(
            [np.arange(x, y).mean() for x, y in pairwise(own)]
        )


def test_bars_are_found_where_nothing_but_numpy_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    curves = rng.uniform(0, 0.3, (400, 2))
    curves[5::13] += 0.6
    (tmp_path / BARS_FILE).write_text(bars_program())
    np.save(tmp_path / "curves.npy", curves)
    (tmp_path / "ask.py").write_text(
        "import bars, json, numpy\n"
        "found = bars.find_bars(numpy.load('curves.npy'), 25.0, 0.02)\n"
        "print(json.dumps([found.times.tolist(), found.places.tolist()]))"
    )
    times, places = said_without_us(tmp_path / "ask.py", cwd=tmp_path)
    wanted = find_bars(curves, 25.0, 0.02)
    assert len(times) > 20
    assert (times, places) == (wanted.times.tolist(), wanted.places.tolist())


def test_only_models_of_beats_give_curves() -> None:
    assert gives_curves(BEATS)
    assert not gives_curves(BEATS.parent / "spectral-lag")
    assert not gives_curves(BEATS.parent / "ensemble")


@pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1")
def test_the_graphs_hear_the_same_beats_in_real_music(
    graphs: CurveGraphs, real_data: Path, tmp_path: Path
) -> None:
    about = export("beats", tmp_path / "beats", report=lambda line: None)
    assert about["parity"]["largest"] <= TOLERANCE
    model, apart, same = Model(tmp_path / "beats"), [], 0
    files = sorted((real_data / "meter-dev").rglob("*.ogg"))
    for file in files:
        wave = load(file, RATE)
        wanted, start = told(graphs.model, wave)
        found = model.curves(wave)
        apart.append(float(np.abs(found - wanted).max()))
        same += same_beats(find_bars(wanted, 25.0, start), find_bars(found, 25.0, start))
    print(f"beats: {len(files)} clips, {max(apart):.1e} at most, the same beats in {same}")
    assert np.median(apart) <= TOLERANCE
    assert max(apart) <= 5e-4
    assert same == len(files)
    soundfile.write(tmp_path / "song.wav", load(files[0], RATE), RATE)
    assert said_without_us(tmp_path / "beats" / PROGRAM, tmp_path / "song.wav", cwd=tmp_path)["places"]
