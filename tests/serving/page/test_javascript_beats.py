"""Beats on the page, against the Python that they follow: the search for bars, where rows of chunks lie, and
how the last bar goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pagevisits import ABOUT_BEATS, RATE

from beatmeter.audio.chunking import Layout, chunk_starts
from beatmeter.schema import ChunkSpec
from beatmeter.serving.answer import Answer
from beatmeter.serving.tempo import prior_of
from beatmeter.tasks.structure.decoding import PointerSettings, find_bars

Ask = Callable[..., Any]
FULL = bool(os.environ.get("BEATMETER_FULL"))


LONG = pytest.param(2, marks=pytest.mark.skipif(not FULL, reason="slow: BEATMETER_FULL=1"))  # in parts


@pytest.mark.parametrize("seed", [0, 1, 3, 4, LONG])
def test_bars_are_those_of_the_pointer(ask: Ask, seed: int) -> None:
    rng = np.random.default_rng(seed)
    apart, size = ((0.42, 3), (0.31, 7), (0.55, 4), (0.47, 5), (0.43, 4))[seed]
    rate, seconds = 25.0, 330.0 if seed == 2 else 24.0
    curves = rng.uniform(0.01, 0.1, (round(seconds * rate), 2))
    for i in range(int((seconds - 1) / apart)):
        at = (0.3 + i * apart + rng.normal(0, 0.01)) * rate
        near = np.exp(-0.5 * (np.arange(len(curves)) - at) ** 2)
        every_other = seed == 4  # beats and bars are found to be twice as long
        beat, bar = (0.4 if every_other and weak else 1.0 for weak in (i % 2, i % 8))
        curves[:, 0] = np.maximum(curves[:, 0], 0.9 * near * beat)
        curves[:, 1] = np.maximum(curves[:, 1], 0.9 * near * bar * (i % size == 0))
    answer = Answer(("3", "4", "5"), np.array([0.2, 0.3, 0.6]), seconds) if seed == 3 else None
    curves = curves.astype(np.float32).astype(float)
    by_model_json = PointerSettings(beat=3.0, usual=(1.0, 0.2), pace=0.5)
    settings = PointerSettings() if seed else by_model_json
    wanted = find_bars(curves, rate, 0.02, None if answer is None else prior_of(answer), settings)
    given = None if answer is None else {"meter": answer.meter, "scores": answer.scores.tolist()}
    function = """(m, [beat, down, answer, set]) => m.findBars(Float32Array.from(beat),
      Float32Array.from(down), 25, 0.02, m.priorOf(answer, ['3', '4', '5']), set)"""
    found = ask("bars.js", function, [curves[:, 0].tolist(), curves[:, 1].tolist(), given, asdict(settings)])
    assert len(wanted.times) > 20
    bars = wanted.times[wanted.places == 1]
    assert (np.diff(wanted.times).min() > 0.7 and np.diff(bars).min() > 3.2) == (seed == 4)
    assert found["places"] == wanted.places.tolist()
    assert found["times"] == pytest.approx(wanted.times.tolist(), abs=1e-4)
    assert found["meter"] == wanted.meter


@pytest.mark.parametrize("samples", [24_000, 60_123, 120_080, 216_500, 500_000])
def test_rows_of_chunks_that_share_frames_are_those_of_the_track(ask: Ask, samples: int) -> None:
    """Every frame is its own number on the grid of the track, so that each row tells where it was taken."""
    about = ABOUT_BEATS | {"states": {"layers": 1, "dim": 2}}
    function = """async (m, [about, samples]) => {
      const made = [], model = { about, at: 0, curves: async (rows, n) => new Float32Array(2 * n),
        front: async (wave) => {
          const frames = Math.floor((wave.length - 400) / 320) + 1, data = new Float32Array(2 * frames);
          for (let f = 0; f < frames; f++) {
            data[2 * f] = wave[320 * f] / 320;
            data[2 * f + 1] = made.length;
          }
          made.push(frames);
          return { data, frames };
        } };
      const beats = new m.FileBeats(model, samples);
      beats.read = async () => {};
      const wave = Float32Array.from({ length: samples }, (_, i) => i);
      for (let a = 0; a < samples; a += 7001) await beats.push(wave.slice(a, a + 7001));
      beats.beat.push(new Float32Array(2));
      beats.down.push(new Float32Array(2));
      await beats.finish(null);
      return Array.from(beats.chunks.held.slice(0, beats.chunks.held.end));
    }"""
    found = np.array(ask("beats.js", function, [about, samples])).reshape(-1, 2)
    spec = ChunkSpec(RATE, 120_080, 96_000, 320, 24_000, 320)
    starts = chunk_starts(samples, spec)
    frames = (min(samples, 120_080) - 400) // 320 + 1
    layout = Layout(samples, tuple(starts), min(samples, 120_080), frames, 320, 400, RATE, True)
    wanted = [
        [kept.position + np.mean(np.arange(a, z)), chunk]
        for chunk, kept in enumerate(layout.kept)
        for a, z in pairwise(kept.edges(3))
    ]
    assert found == pytest.approx(np.array(wanted))


def test_beats_go_on_as_the_last_bar_did(ask: Ask) -> None:
    found = {"times": [0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 4.5], "places": [1, 2, 3, 1, 2, 3, 1, 2]}
    more = ask("beats.js", "(m, found) => m.ahead(found, 8.2)", found)
    assert [b["place"] for b in more] == [3, 1, 2, 3, 1]
    assert [b["time"] for b in more] == pytest.approx([5.0, 6.0, 6.5, 7.0, 8.0])
    at = "(m, [found, now]) => m.beatAt(found, now)"
    assert ask("beats.js", at, [found, -0.1]) is None
    assert ask("beats.js", at, [found, 2.7]) == {"place": 2, "size": 3, "time": 2.5}
    assert ask("beats.js", "(m, found) => m.tempoOf(found)", found) == pytest.approx(90.0)
    assert ask("beats.js", "(m, found) => m.ahead(found, 9)", {"times": [1.0], "places": [1]}) == []
