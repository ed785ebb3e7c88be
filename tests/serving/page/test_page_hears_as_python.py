"""The page with a real model in a real browser engine hears what Python hears: files of 24 kHz to 1e-4, other
rates to 0.02 and the same answer, a stream the same belief.

Needs Chromium and onnxruntime-web in the cache, where `beatmeter page` puts it. BEATMETER_FULL=1 takes 40
clips of real music.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from pagevisits import RATE, Visit, serving, visiting
from waiting import until

from beatmeter.audio.decode import load
from beatmeter.datasets.synth import render
from beatmeter.evaluation.timeline import timeline
from beatmeter.schema import Track
from beatmeter.serving.curves import CurveModel
from beatmeter.serving.onnx.export import export
from beatmeter.serving.page.build import page_files
from beatmeter.serving.page.runtime import cached_runtime
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.streaming import MeterStream
from beatmeter.serving.tempo import BEATS as BEATS_MODEL
from beatmeter.serving.tempo import prior_of
from beatmeter.tasks.structure.decoding import find_bars

CPU = torch.device("cpu")
FULL = bool(os.environ.get("BEATMETER_FULL"))
HEARD = """async (text) => {
  const { loadModel } = await import('/model.js'), m = await import('/hearing.js');
  const { openWave } = await import('/waves.js'), { Resampler } = await import('/resample.js');
  window.model ??= await loadModel(location.origin + '/');
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const source = await openWave(new Blob([bytes]));
  const r = new Resampler(source.rate, model.about.sample_rate);
  const hearing = new m.FileHearing(model, r.length(source.samples));
  for (let a = 0; a < source.samples; a += 100000) {
    await hearing.push(r.push(await source.read(a, Math.min(source.samples, a + 100000))));
  }
  await hearing.push(r.finish());
  const state = await hearing.finish();
  return { answer: state.answer, segments: state.segments };
}"""
STREAMED = """async (text) => {
  const m = await import('/hearing.js');
  const wave = new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const hearing = new m.LiveHearing(model), believed = [];
  for (let a = 0; a < wave.length; a += 2000) {
    hearing.push(wave.slice(a, a + 2000));
    while (await hearing.advance());
    if (hearing.last && hearing.last.end !== believed.at(-1)?.end) {
      believed.push({ end: hearing.last.end, belief: hearing.belief });
    }
  }
  return believed;
}"""


BEATS = """async (text) => {
  const { loadModel } = await import('/model.js'), { FileBeats } = await import('/beats.js');
  const { priorOf } = await import('/bars.js');
  window.model ??= await loadModel(location.origin + '/');
  const { wave, answer } = JSON.parse(text);
  const samples = new Float32Array(Uint8Array.from(atob(wave), (c) => c.charCodeAt(0)).buffer);
  const beats = new FileBeats(model.beats, samples.length);
  for (let a = 0; a < samples.length; a += 100000) await beats.push(samples.slice(a, a + 100000));
  return beats.finish(priorOf(answer, model.about.classes));
}"""


@pytest.fixture(scope="module")
def open_page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    engine = cached_runtime()
    if engine is None:
        pytest.skip("onnxruntime-web is not in the cache: run `beatmeter page --out DIR` once")
    exported: Path = request.getfixturevalue("exported")  # dear, so only where it is used
    with serving(page_files(exported, engine)) as server, visiting(browser, server) as visit:
        until(lambda: "Ready" in visit.text("#status"))
        yield visit


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("spectral-lag", torch.device("cpu"))


def music(seconds: float, rate: int = RATE) -> np.ndarray:
    return render(7, meter=5, seconds=seconds, sample_rate=rate, kind="single").audio


def hear(page: Visit, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = page.page.evaluate(HEARD, base64.b64encode(path.read_bytes()).decode())
    return found


def same(page: Visit, predictor: Predictor, path: Path, tolerance: float) -> float:
    """The largest difference of a probability; the answer is the same."""
    ((_, said),) = predictor.predict_files([path])
    heard = hear(page, path)["answer"]
    assert (heard["meter"], heard["second"], heard["how"] == "sure") == (said.meter, said.second, said.sure)
    apart = np.abs(np.array([*heard["scores"], heard["heard"]]) - [*said.scores, said.heard]).max()
    assert apart <= tolerance, path.name
    return float(apart)


@pytest.mark.parametrize("seconds", [1.0, 7.3, 31.0])
def test_a_file(open_page: Visit, predictor: Predictor, tmp_path: Path, seconds: float) -> None:
    soundfile.write(tmp_path / "five.wav", music(seconds), RATE, subtype="FLOAT")
    same(open_page, predictor, tmp_path / "five.wav", 1e-4)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_another_rate_with_one_dead_channel(
    open_page: Visit, predictor: Predictor, tmp_path: Path, rate: int
) -> None:
    wave = music(12.0, rate)
    soundfile.write(tmp_path / "five.wav", np.stack([wave, 0 * wave], axis=1), rate)
    same(open_page, predictor, tmp_path / "five.wav", 0.02)


def test_a_timeline(open_page: Visit, predictor: Predictor, tmp_path: Path) -> None:
    wave = np.concatenate([music(17.0), render(8, meter=3, seconds=17.0, kind="single").audio])
    soundfile.write(tmp_path / "two.wav", wave, RATE, subtype="FLOAT")
    times, answers = predictor.hear(tmp_path / "two.wav")
    scores, heard = np.stack([a.scores for a in answers]), np.array([a.heard for a in answers])
    there = timeline(times, scores, predictor.classes, predictor.thresholds, heard=heard)
    here = hear(open_page, tmp_path / "two.wav")["segments"]
    assert [(s["meter"], s["second"]) for s in here] == [(s.meter, s.second) for s in there.segments]
    for ours, theirs in zip(here, there.segments, strict=True):
        assert [ours["start"], ours["end"], ours["score"]] == pytest.approx(
            [theirs.start, theirs.end, theirs.score], abs=1e-4
        )


def test_a_stream(open_page: Visit, predictor: Predictor, tmp_path: Path) -> None:
    wave = music(16.0).astype(np.float32)
    stream = MeterStream(predictor, RATE, predictor.classes, late=np.inf)
    there = stream.push(wave)
    soundfile.write(tmp_path / "loads.wav", music(1.0), RATE)
    hear(open_page, tmp_path / "loads.wav")
    here = open_page.page.evaluate(STREAMED, base64.b64encode(wave.tobytes()).decode())
    last = {round(h.time): h for h in there}
    assert [h["end"] for h in here] == [5, 10, 15]  # when a chunk is complete, its newest hop
    for ours in here:
        theirs = last[round(ours["end"])]
        best = int(np.argmax(ours["belief"]))
        assert (*predictor.classes, None)[best] == theirs.meter
        assert ours["belief"][best] == pytest.approx(theirs.probability, abs=1e-4)


@pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1")
def test_forty_clips_of_real_music(
    open_page: Visit, predictor: Predictor, real_data: Path, tmp_path: Path
) -> None:
    clips = sorted((real_data / "meter-dev" / "audio").iterdir())[::3][:40]
    assert len(clips) == 40
    at_rate, others = [], []
    for i, clip in enumerate(clips):
        rate = (44_100, 48_000)[i % 2]
        soundfile.write(tmp_path / "other.wav", load(clip, rate), rate, subtype="FLOAT")
        others.append(same(open_page, predictor, tmp_path / "other.wav", 0.02))
        soundfile.write(tmp_path / "same.wav", load(clip, RATE), RATE, subtype="FLOAT")
        at_rate.append(same(open_page, predictor, tmp_path / "same.wav", 1e-4))
        print(i, clip.name, at_rate[-1], rate, others[-1])
    print("24 kHz:", len(at_rate), max(at_rate), "other rates:", len(others), max(others))


@pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1")
def test_beats_of_real_music(
    browser: Any, exported: Path, predictor: Predictor, real_data: Path, tmp_path: Path
) -> None:
    engine = cached_runtime()
    if engine is None:
        pytest.skip("onnxruntime-web is not in the cache: run `beatmeter page --out DIR` once")
    export("beats", tmp_path / "beats", report=lambda line: None)
    clips, model = sorted((real_data / "meter-dev" / "audio").iterdir())[::10], CurveModel(BEATS_MODEL, CPU)
    alike, apart = 0, []
    with (
        serving(page_files(exported, engine, tmp_path / "beats")) as server,
        visiting(browser, server) as visit,
    ):
        until(lambda: "Ready" in visit.text("#status"))
        for clip in clips:
            wave = load(clip, RATE)
            said, listener = predictor.predict(wave, RATE), model.listen(len(wave))
            listener.push(wave)
            curves = listener.finish(Track(clip.name, clip))
            there = find_bars(curves.values[0], curves.rate, float(curves.starts[0]), prior_of(said))
            answer = {"meter": said.meter, "scores": said.scores.tolist()}
            text = json.dumps({"wave": base64.b64encode(wave.tobytes()).decode(), "answer": answer})
            here = visit.page.evaluate(BEATS, text)
            same_places = here["places"] == there.places.tolist()
            alike += same_places
            if same_places:
                apart.append(float(np.abs(np.array(here["times"]) - there.times).max(initial=0)))
    print(f"beats: {alike} of {len(clips)} clips alike, {1000 * max(apart):.2f} ms apart at most")
    assert alike == len(clips)
    assert max(apart) < 0.002
