"""The parts of the page that compute, against the Python that they follow, in the same browser: resampling,
belief, timeline, where chunks and windows lie, reading files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from pagevisits import ABOUT, RATE

from beatmeter.audio.chunking import Layout, chunk_starts
from beatmeter.evaluation.timeline import timeline, windows
from beatmeter.schema import ChunkSpec
from beatmeter.serving.streaming import MeterStream

Ask = Callable[..., Any]
CLASSES = ("3", "4", "5")
STREAM = {"window": 10.0, "hop": 1.0, "minimum": 4.0, "duration": 30.0}


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=np.float32)


PACK = """
  const pack = (x) => { let s = ''; for (const b of new Uint8Array(x.buffer, x.byteOffset, x.byteLength))
    s += String.fromCharCode(b); return btoa(s); };
  const unpack = (s) => new Float32Array(Uint8Array.from(atob(s), (c) => c.charCodeAt(0)).buffer);
"""


@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050, 44_099, RATE])
def test_resampling_follows_soxr_whatever_the_blocks(ask: Ask, rate: int) -> None:
    rng = np.random.default_rng(1)
    wave = rng.normal(size=rate // 2).astype(np.float32) * 0.2
    wave[:200] = 0  # filters differ in how they begin and end
    wave[-200:] = 0
    function = (
        "(m, [rate, text, size]) => {"
        + PACK
        + """
      const wave = unpack(text), r = new m.Resampler(rate, 24000), parts = [];
      for (let a = 0; a < wave.length; a += size) parts.push(r.push(wave.subarray(a, a + size)));
      parts.push(r.finish());
      const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
      let at = 0;
      for (const p of parts) { out.set(p, at); at += p.length; }
      return [pack(out), r.length(wave.length), r.held.length];
    }"""
    )
    text = base64.b64encode(wave.tobytes()).decode()
    whole, length, held = ask("resample.js", function, [rate, text, len(wave)])
    small, _, held_small = ask("resample.js", function, [rate, text, 333])
    assert np.array_equal(floats(whole), floats(small))
    assert len(floats(whole)) == length
    assert max(held, held_small) < 1000  # it does not keep what it has heard
    other = wave if rate == RATE else soxr.resample(wave, rate, RATE, quality="HQ")
    n = min(len(other), length)
    assert abs(len(other) - length) <= 1
    # white noise is as loud at the edge of the band, where filters differ, as anywhere; music is not
    spectra = np.abs(np.fft.rfft(other[:n])), np.abs(np.fft.rfft(floats(whole)[:n] - other[:n]))
    inside = slice(0, int(0.9 * min(1, rate / RATE) * len(spectra[0])))
    assert np.sqrt((spectra[1][inside] ** 2).mean() / (spectra[0][inside] ** 2).mean()) < 1e-3


@dataclass
class Word:
    scores: np.ndarray
    heard: float | None


class Script:
    """A model that says what is written down, window by window."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words, self.sample_rate, self.begin, self.covered = list(words), 100, 0.0, 0.0

    def windows(self) -> Script:
        return self

    def push(self, block: np.ndarray, skip: bool = False) -> None:
        self.covered += len(block) / self.sample_rate

    def answers(self, times: np.ndarray) -> list[Word]:
        return [self.words.pop(0) for _ in times]

    def finish(self) -> None: ...

    def forget(self, before: float) -> None: ...


@pytest.mark.parametrize("tells", [True, False])
def test_the_belief_is_that_of_a_meter_stream(ask: Ask, tells: bool) -> None:
    rng = np.random.default_rng(2)
    words = [Word(rng.random(3) ** 3, float(rng.random()) if tells else None) for _ in range(40)]
    words[5].scores[:] = 0.0  # clipped
    stream = MeterStream(Script(words), 100, CLASSES, **STREAM)
    heard = stream.push(np.zeros(43 * 100, dtype=np.float32))
    said = ask(
        "belief.js",
        """(m, [words, stream]) => { let b = null;
        return words.map((w) => (b = m.believe(b, w.scores, w.heard, 1, stream))); }""",
        [[{"scores": w.scores.tolist(), "heard": w.heard} for w in words], STREAM],
    )
    assert len(heard) == len(said) == 40
    for h, belief in zip(heard, said, strict=True):
        assert belief[int(np.argmax(belief))] == pytest.approx(h.probability, abs=1e-12)
        assert (*CLASSES, None)[int(np.argmax(belief))] == h.meter


def test_the_belief_follows_the_golden_streams_over_hops_left_out(ask: Ask) -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden_stream.json").read_text())
    runs = [b["hops"] for b in golden["beliefs"]] + [p["answers"] for p in golden["pieces"].values()]
    assert any(hop["skipped"] for hops in runs for hop in hops)
    said = ask(
        "belief.js",
        """(m, [runs, stream]) => runs.map((hops) => { let b = null;
        return hops.map((h) => (b = m.believe(b, h.scores, h.heard ?? null, h.skipped + 1, stream))); })""",
        [runs, golden["stream"]],
    )
    for hops, beliefs in zip(runs, said, strict=True):
        for hop, belief in zip(hops, beliefs, strict=True):
            assert belief == pytest.approx(hop["belief"], abs=1e-6)  # the file keeps seven digits


def test_the_timeline_is_that_of_python(ask: Ask) -> None:
    rng = np.random.default_rng(3)
    times = windows(131.3)
    scores = rng.random((len(times), 3)) ** 2
    scores[:20, 0] += 0.6
    scores[20:, 2] += 0.6
    heard = np.where(np.arange(len(times)) % 17 < 4, 0.02, 0.97)
    limits = np.array([0.4, 0.5, 0.6])
    there = timeline(times, scores.clip(0, 1), CLASSES, limits, heard=heard)
    rows = [
        {"start": a, "end": b, "scores": s, "heard": h}
        for (a, b), s, h in zip(times.tolist(), scores.clip(0, 1).tolist(), heard.tolist(), strict=True)
    ]
    here = ask(
        "belief.js",
        """(m, [classes, limits, rows]) => { const t = new m.Timeline(classes, limits, 30);
        rows.forEach((r) => t.add(r)); return [t.path(), t.segments()]; }""",
        [CLASSES, limits.tolist(), rows],
    )
    assert here[0] == there.path.tolist()
    assert len(here[1]) == len(there.segments) > 2
    for ours, theirs in zip(here[1], there.segments, strict=True):
        assert (ours["meter"], ours["second"]) == (theirs.meter, theirs.second)
        for key in ("start", "end", "score"):
            assert ours[key] == pytest.approx(getattr(theirs, key), abs=1e-9)


RECORDING = """
  const model = (about, calls, slow = () => 0) => ({
    about,
    async front(samples) {
      slow();
      const frames = Math.floor((samples.length - 400) / 320) + 1;
      calls.push(['front', samples[0], samples.length]);
      return { frames, data: Float32Array.from({ length: frames }, (_, i) => samples[0] + i) };
    },
    async back(states, frames, first, rows, seen) {
      calls.push(['back', states[0], states[states.length - 1], frames, first, seen]);
      const calibrated = about.classes.map((_, i) => (i ? 0.1 : 0.9));
      return { calibrated, scores: calibrated, heard: 0.9, rows, seen: seen + frames };
    },
  });
"""  # states of a chunk are its first sample and the number of the frame


@pytest.mark.parametrize("seconds", [1.0, 4.99, 5.0, 7.3, 12.0, 31.0, 65.2, 125.0])
def test_chunks_and_windows_of_a_file_lie_where_python_lays_them(ask: Ask, seconds: float) -> None:
    samples = round(seconds * RATE)
    calls = ask(
        "hearing.js",
        """async (m, [about, samples]) => {"""
        + RECORDING
        + """
        const calls = [], hearing = new m.FileHearing(model(about, calls), samples);
        const wave = (a, b) => Float32Array.from({ length: b - a }, (_, i) => 0.5 + Math.floor((a + i) / 10));
        for (let a = 0; a < samples; a += 77777) await hearing.push(wave(a, Math.min(samples, a + 77777)));
        const state = await hearing.finish();
        return { calls, state };
      }""",
        [ABOUT, samples],
    )
    fronts = [c for c in calls["calls"] if c[0] == "front"]
    backs = [c for c in calls["calls"] if c[0] == "back"]
    spec = ChunkSpec()
    layout = Layout(
        samples,
        tuple(chunk_starts(samples, spec)),
        min(samples, spec.length),
        (min(samples, spec.length) - 400) // 320 + 1,
        320,
        400,
        RATE,
    )
    assert [c[1] for c in fronts] == [0.5 + start // 10 for start in layout.starts]
    assert {c[2] for c in fronts} == {layout.length}
    wholes = [c for c in backs if c[5] > 0 or c[3] > 751 or len(layout.starts) < 3]
    joined = [
        layout.frames * (w.chunks[1] - w.chunks[0]) - sum(w.skip)
        for w in layout.windows(ABOUT["window"]["chunks"])
    ]
    seen = np.cumsum([0, *joined])
    for size, before in zip(joined, seen, strict=False):
        assert any(c[3] == size and c[5] == before for c in wholes)
    times = windows(samples / RATE)
    over = list(backs)
    for size, before in zip(joined, seen, strict=False):
        over.remove(next(c for c in over if c[3] == size and c[5] == before))
    assert len(over) == len(times)
    total = sum(joined)
    for call, (a, b) in zip(over, times.tolist(), strict=True):
        last = min(round(b * 75), total)
        first = min(max(0, last - round((b - a) * 75)), last - 1)
        assert (call[3], call[4]) == (last - first, first % 375)
        assert call[1] == _state(layout, first)
        assert call[2] == _state(layout, last - 1)
    assert calls["state"]["segments"][-1]["end"] == pytest.approx(samples / RATE)


def _state(layout: Layout, frame: int) -> float:
    """What the recording model says of this frame of the joined chunks."""
    at = 0
    for start, skip in zip(layout.starts, layout.skips, strict=True):
        if frame < at + layout.frames - skip:
            return float(np.float32(0.5 + start // 10 + frame - at + skip))
        at += layout.frames - skip
    raise AssertionError(frame)


LIVE = (
    """async (m, [about, minutes, slow]) => {"""
    + RECORDING
    + """
    const calls = [], states = [];
    let behind = 0;
    const hearing = new m.LiveHearing(model(about, calls, () => (behind += slow)), about.stream);
    const block = new Float32Array(2400).fill(0.5);
    for (let n = 0; n < minutes * 600; n++) {
      hearing.push(block);
      behind = Math.max(0, behind - 0.1);
      if (behind > 0) continue; // it still computes
      while (await hearing.advance());
      calls.length = 0;
      const { bytes, answered, heard, skipped, segments } = hearing.state();
      states.push([heard, answered, bytes, skipped, segments.length]);
    }
    return states;
  }"""
)


def test_ten_minutes_leave_the_state_flat_and_every_answer_fresh(ask: Ask) -> None:
    states = np.array(ask("hearing.js", LIVE, [ABOUT, 10, 0]))
    heard, answered, held, skipped, segments = states.T
    assert heard[-1] == pytest.approx(600)
    after = heard >= ABOUT["stream"]["minimum"] + 0.2
    assert (heard - answered)[after].max() <= 1.1 + 1e-6  # seconds: a hop and a block
    minute = (heard > 30) & (heard <= 90)
    assert held[heard > 90].max() == held[minute].max()
    assert skipped[-1] == 0
    assert segments[-1] == 1


def test_a_model_that_is_too_slow_leaves_answers_out_and_stays_near_the_sound(ask: Ask) -> None:
    states = np.array(ask("hearing.js", LIVE, [ABOUT, 3, 4.0]))
    heard, answered, held, skipped, _ = states.T
    assert skipped[-1] > 20
    assert held.max() < 5e6
    assert (heard - answered)[-10:].max() <= 15.0


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wave_files_are_read_as_soundfile_reads_them(ask: Ask, subtype: str) -> None:
    wave = np.random.default_rng(4).uniform(-0.9, 0.9, (500, 2))
    file = io.BytesIO()
    soundfile.write(file, wave, 11_025, subtype=subtype, format="WAVEX" if subtype == "PCM_24" else "WAV")
    rate, samples, found = ask(
        "waves.js",
        "async (m, text) => {"
        + PACK
        + """
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const s = await m.openWave(new Blob([bytes]));
        return [s.rate, s.samples, pack(await s.read(100, 500))];
      }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    file.seek(0)
    expected = soundfile.read(file, dtype="float32")[0].mean(axis=1)[100:]
    assert (rate, samples) == (11_025, 500)
    assert np.abs(floats(found) - expected).max() < 1e-7


@pytest.mark.parametrize(
    ("kind", "rate"), [("FLAC", 96_000), ("OGG", 32_000), ("MP3", 22_050), ("MP3", 44_100)]
)
def test_the_rate_of_compressed_files_is_read_from_their_header(ask: Ask, kind: str, rate: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(5).normal(size=rate) * 0.1, rate, format=kind)
    found = ask(
        "waves.js",
        "(m, text) => m.sniffRate(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)))",
        base64.b64encode(file.getvalue()).decode(),
    )
    assert found == rate
    assert ask("waves.js", "(m) => m.sniffRate(new Uint8Array(50))") == 48_000


@pytest.mark.parametrize("rate", [44_100, 24_000])
def test_a_long_mp3_is_the_same_in_parts(ask: Ask, rate: int) -> None:
    noise = np.random.default_rng(6).normal(size=13 * rate)
    wave = np.convolve(noise, np.ones(8) / 30, "same")  # nothing in it returns, so that it fits in one place
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave, wave], axis=1), rate, format="MP3")
    whole, parts, samples, short = ask(
        "mpeg.js",
        "async (m, text) => {"
        + PACK
        + """
        const { decode } = await import('/waves.js');
        const file = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
        const s = await m.openMpeg(file, 5, 2.5);
        const out = new Float32Array(s.samples);
        for (let a = 0; a < s.samples; a += 50000) {
          out.set(await s.read(a, Math.min(s.samples, a + 50000)), a);
        }
        return [pack((await decode(file, 13)).samples), pack(out), s.samples, await m.openMpeg(file)];
      }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    there, here = floats(whole), floats(parts)
    assert short is None  # a song is unpacked at once
    assert abs(len(there) - samples) < 3000  # silence of the encoder before and after
    shift = int(np.argmax([np.dot(there[5000:25_000], here[5000 + d : 25_000 + d]) for d in range(3000)]))
    n = min(len(there), len(here) - shift) - 3000
    assert np.abs(here[shift + 3000 : shift + n] - there[3000:n]).max() < 1e-3
