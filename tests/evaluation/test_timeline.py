"""Timelines by brute force over all paths, windows that cover, and streams that do not depend on how audio is
cut into blocks."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import meter_controls as controls
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beatmeter.cli.timeline import timeline as command
from beatmeter.errors import ConfigError, EvaluationError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.timeline import DURATION, clock, evidence_of, timeline, timelines, windows
from beatmeter.serving.streaming import MeterStream

CLASSES = ("3", "4", "7")


def course(meters: list[int], seed: int = 0, noise: float = 0.1) -> np.ndarray:
    scores = 0.15 + 0.6 * np.eye(3)[meters] + np.random.default_rng(seed).normal(0, noise, (len(meters), 3))
    return np.clip(scores, 0.01, 0.99)


@pytest.mark.parametrize("asked", [False, True], ids=["meters", "meters or none"])
@pytest.mark.parametrize("seed", range(5))
def test_the_path_and_the_posterior_are_those_of_all_paths(seed: int, asked: bool) -> None:
    times = windows(20.0, 8.0, 2.0)
    scores = np.random.default_rng(seed).random((len(times), 3))
    heard = np.random.default_rng(seed + 10).random(len(times)) if asked else None
    t = timeline(times, scores, CLASSES, duration=6.0, heard=heard)
    new = np.clip(np.diff(times[:, 1], prepend=times[0, 0]) / (times[:, 1] - times[:, 0]), 0, 1)
    evidence = evidence_of(scores, new, heard)
    states = evidence.shape[1]
    stay = np.exp(-np.diff(times.mean(axis=1)) / 6.0)
    total, best, marginal = 0.0, (-np.inf, ()), np.zeros_like(evidence)
    for path in product((0, 1, 2, -1)[:states], repeat=len(times)):
        logp = sum(evidence[i, k] for i, k in enumerate(path))
        logp += sum(
            np.log(stay[i] if a == b else (1 - stay[i]) / (states - 1))
            for i, (a, b) in enumerate(pairwise(path))
        )
        total += np.exp(logp)
        best = max(best, (logp, path))
        for i, k in enumerate(path):
            marginal[i, k] += np.exp(logp)
    assert tuple(t.path) == best[1]
    np.testing.assert_allclose(t.posterior, marginal / total, atol=1e-9)


def test_changes_are_found_where_they_are_and_blips_are_not() -> None:
    times = windows(120.0, 10.0, 2.5)
    centres = times.mean(axis=1)
    meters = np.where(centres < 40, 0, np.where(centres < 80, 2, 1))
    t = timeline(times, course(meters.tolist()), CLASSES)
    assert [s.meter for s in t.segments] == ["3", "7", "4"]
    assert t.changes == pytest.approx((40, 80), abs=3)
    assert (t.segments[0].start, t.segments[-1].end) == (0.0, 120.0)
    assert all(a.end == b.start for a, b in zip(t.segments, t.segments[1:], strict=False))
    assert t.stability > 0.95
    blip = np.zeros(len(times), dtype=int)
    blip[20] = 1
    steady = timeline(times, course(blip.tolist()), CLASSES)
    assert len(steady.segments) == 1
    assert steady.stability == pytest.approx(1 - 1 / len(times))
    json.dumps(t.to_json(), allow_nan=False)
    assert "7" in t.to_text().splitlines()[2]
    assert "2 changes" in t.to_text()


def test_where_no_meter_is_heard_the_timeline_names_none() -> None:
    times = windows(120.0, 10.0, 2.5)
    heard = np.where(times.mean(axis=1) < 60, 0.95, 0.05)
    t = timeline(times, course([2] * len(times)), CLASSES, np.full(3, 0.01), heard=heard)
    assert [s.meter for s in t.segments] == ["7", None]
    assert t.changes == pytest.approx((60,), abs=3)
    assert t.segments[1].score == pytest.approx(0.95)
    assert (t.segments[1].gap, t.segments[1].second) == (0.0, None)
    assert t.stability > 0.95
    value = json.loads(json.dumps(t.to_json(), allow_nan=False))
    assert value["segments"][1]["meter"] is None
    assert value["windows"][-1]["meter"] is None
    assert value["windows"][-1]["heard"] == pytest.approx(0.05)
    assert "none" in t.to_text().splitlines()[2]
    heard[10] = 0.2
    assert len(timeline(times, course([2] * len(times)), CLASSES, heard=heard).segments) == 2, (
        "one unclear window is no gap"
    )
    assert {
        s.meter
        for s in timeline(times, course([2] * len(times)), CLASSES, heard=np.full(len(times), 0.6)).segments
    } == {"7"}


def test_a_second_meter_needs_most_windows_above_its_threshold() -> None:
    times = windows(60.0)
    scores = np.tile([0.8, 0.6, 0.1], (len(times), 1))
    assert timeline(times, scores, CLASSES).segments[0].second is None
    assert timeline(times, scores, CLASSES, np.array([0.5, 0.5, 0.5])).segments[0].second == "4"
    assert timeline(times, scores, CLASSES, np.array([0.5, 0.7, 0.05])).segments[0].second == "7"
    scores[::2, 1] = 0.1
    assert timeline(times, scores, CLASSES, np.array([0.5, 0.5, 0.5])).segments[0].second is None


@settings(max_examples=100)
@example(seconds=1.0000000000000002, window=1.0, share=1.0)
@example(seconds=1.3, window=1.0, share=0.05)  # 6 x 0.05 is not 0.3
@given(st.floats(0.5, 400), st.floats(1, 30), st.floats(0.05, 1))
def test_windows_cover_everything_once_over(seconds: float, window: float, share: float) -> None:
    w = windows(seconds, window, share * window)
    assert w[0, 0] == 0
    assert w[-1, 1] == pytest.approx(seconds)
    assert (w[1:, 0] <= w[:-1, 1] + 1e-9).all(), "no gap"
    assert (np.diff(w[:, 0]) > 0).all()
    np.testing.assert_allclose(w[:, 1] - w[:, 0], min(window, seconds))


def test_timelines_of_predictions_take_windows_in_order_of_time() -> None:
    p = controls.selective(0, songs=4)
    n = len(p)
    starts = np.arange(n, dtype=float)[::-1] * 5
    windowed = dataclasses.replace(
        p, ids=tuple("ab"[i % 2] for i in range(n)), times=np.column_stack([starts, starts + 10])
    )
    found = timelines(windowed)
    assert set(found) == {"a", "b"}
    assert found["a"].times[0, 0] < found["a"].times[-1, 0]
    with pytest.raises(EvaluationError, match="whole tracks"):
        timelines(p)
    with pytest.raises(EvaluationError, match="order of time"):
        timeline(np.array([[5.0, 10], [0, 5]]), np.full((2, 3), 0.5), CLASSES)
    with pytest.raises(EvaluationError, match="leave gaps"):
        windows(10.0, 2.0, 3.0)


def test_clock() -> None:
    assert [clock(s) for s in (0.0, 59.96, 75.5, 3600.0)] == ["0:00.0", "1:00.0", "1:15.5", "60:00.0"]


RATE = 50


def classify(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """A model that hears the share of samples near 1, 2 and 3."""
    assert sample_rate == RATE
    return np.clip(0.05 + 0.9 * np.array([(np.abs(wave - k) < 0.1).mean() for k in (1, 2, 3)]), 0, 1)


def piece() -> np.ndarray:
    return np.concatenate([np.full(40 * RATE, 1.0), np.full(50 * RATE, 3.0)]).astype(np.float32)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=30))
def test_a_stream_does_not_depend_on_its_blocks(sizes: list[int]) -> None:
    wave = piece()
    whole = MeterStream(classify, RATE, CLASSES).push(wave)
    stream, heard, at = MeterStream(classify, RATE, CLASSES), [], 0
    for size in [*sizes, len(wave)]:
        heard += stream.push(wave[at : at + size])
        at += size
    assert [(h.time, h.meter, h.probability) for h in heard] == [
        (h.time, h.meter, h.probability) for h in whole
    ]


def test_a_stream_answers_every_hop_and_follows_the_music() -> None:
    stream = MeterStream(
        classify, RATE, CLASSES, window=10.0, hop=1.0, minimum=4.0, thresholds=np.array([0.3, 0.3, 0.3])
    )
    heard = stream.push(piece())
    assert [h.time for h in heard] == pytest.approx(np.arange(4.0, 91.0).tolist())
    at = {h.time: h for h in heard}
    assert at[39.0].meter == "3"
    assert at[89.0].meter == "7"
    assert next(h.time for h in heard if h.meter == "7") < 40 + 20
    assert at[45.0].second in ("3", "7"), "half of this window is each"
    assert at[89.0].second is None
    stream.reset()
    assert stream.push(piece()[: 5 * RATE])[0].time == 4.0


def test_the_command_hears_a_file_by_the_answers_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a trained model that tells low from high tones; all else is the real command."""
    import beatmeter.serving.predictor as module

    class Model:
        classes = controls.CLASSES

        @classmethod
        def load(cls, run: Path, device: object) -> Model:
            assert run == tmp_path
            return cls()

        def require_meter(self, what: str) -> None:
            pass

        @property
        def thresholds(self) -> np.ndarray:
            return calibration.threshold("production")

        def hear(
            self, path: Path, window: float, hop: float, progress: object = None
        ) -> tuple[np.ndarray, list[SimpleNamespace]]:
            wave, rate = soundfile.read(path)
            times = windows(len(wave) / rate, window, hop)
            pitch = [
                np.abs(np.fft.rfft(part)).argmax() * rate / len(part)
                for part in (wave[int(a * rate) : int(b * rate)] for a, b in times)
            ]
            return times, [
                SimpleNamespace(scores=np.where(np.arange(6) == (0 if p < 300 else 3), 0.9, 0.1), heard=None)
                for p in pitch
            ]

    calibration = Calibration.fit(controls.selective(0, split="val"))
    monkeypatch.setattr(module, "Predictor", Model)
    (tmp_path / "config.toml").write_text("")
    t = np.arange(40 * 8000) / 8000
    soundfile.write(tmp_path / "song.wav", 0.5 * np.sin(2 * np.pi * np.where(t < 20, 200, 400) * t), 8000)
    plot = tmp_path / "song.svg"
    result = CliRunner().invoke(
        command,
        [
            str(tmp_path),
            str(tmp_path / "song.wav"),
            "--json",
            "--plot",
            str(plot),
            "--window",
            "5",
            "--hop",
            "1",
        ],
    )
    assert result.exception is None, result.exception
    value = json.loads(result.stdout)
    assert [s["meter"] for s in value["segments"]] == ["3", "7"]
    assert value["changes"] == pytest.approx([20], abs=1.5)
    assert value["segments"][0]["score"] == pytest.approx(0.9), (
        "answers are calibrated already: not once more"
    )
    assert "<svg" in plot.read_text()
    assert "2 changes" not in CliRunner().invoke(command, [str(tmp_path), str(tmp_path / "song.wav")]).stdout
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        CliRunner().invoke(command, [str(tmp_path), "x.wav", "--plot", "x.gif"], catch_exceptions=False)


def test_the_command_takes_windows_of_any_program(tmp_path: Path) -> None:
    lines = ["id,start,end,primary,score_3,score_4"]
    for piece, turn in (("a", 6), ("b", 99)):
        lines += [
            f"{piece},{5 * i},{5 * i + 10},,{0.9 if i < turn else 0.1},{0.1 if i < turn else 0.9}"
            for i in range(16)
        ]
    file = tmp_path / "windows.csv"
    file.write_text("\n".join(lines) + "\n")
    value = json.loads(CliRunner().invoke(command, [str(file), "--json"]).stdout)
    assert value["a"]["changes"] == pytest.approx([32.5])
    assert value["b"]["changes"] == []
    assert CliRunner().invoke(command, [str(file)]).stdout.startswith("a\n")
    (tmp_path / "config.toml").write_text("")
    for arguments, said in (
        ([str(file), "--plot", "x.png"], "holds 2 pieces"),
        ([str(tmp_path)], "name the files to hear"),
    ):
        with pytest.raises(ConfigError, match=said):
            CliRunner().invoke(command, arguments, catch_exceptions=False)


class Work:
    """A clock, and a model that takes `cost` seconds of it for every window."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.calls = 0.0, cost, 0

    def __call__(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        self.now += self.cost
        self.calls += 1
        return classify(wave, sample_rate)

    def stream(self, **options: float) -> MeterStream:
        return MeterStream(self, RATE, CLASSES, clock=lambda: self.now, **options)


def test_a_stream_that_is_too_slow_skips_hops_says_how_many_and_stays_near_the_music() -> None:
    wave, work = piece(), Work(2.5)  # of answers for every second
    stream, heard = work.stream(late=2.0), []
    for second in range(90):
        work.now = max(
            second + 1.0, work.now
        )  # the next second of audio is there, and the stream has time for it
        for answer in stream.push(wave[second * RATE : (second + 1) * RATE]):
            heard.append(answer)
            assert work.now - answer.time <= 2.0 + 2.5 + 1, (
                "late by what is allowed, one answer and one hop at most"
            )
    assert len(heard) + stream.skipped == 87
    assert stream.skipped > 40
    assert sum(h.skipped for h in heard) + stream._since == stream.skipped
    assert heard[-1].meter == "7", "what was skipped does not keep it from following"
    everything = Work(2.5).stream(late=np.inf)
    assert len(everything.push(wave)) == 87
    assert everything.skipped == 0


def test_a_stream_that_keeps_up_skips_nothing_whatever_time_passes_between_blocks() -> None:
    work = Work(0.9)
    stream, heard = work.stream(), 0
    for second in range(90):
        work.now += 60.0  # somebody talks
        heard += len(stream.push(piece()[second * RATE : (second + 1) * RATE]))
    assert heard == 87
    assert stream.skipped == 0


def test_streams_refuse_what_they_cannot_hear() -> None:
    stream = MeterStream(classify, RATE, CLASSES)
    with pytest.raises(EvaluationError, match="must be mono"):
        stream.push(np.zeros((10, 2), dtype=np.float32))
    with pytest.raises(EvaluationError, match="all finite"):
        stream.push(np.array([np.nan], dtype=np.float32))
    with pytest.raises(EvaluationError, match="cannot hear"):
        MeterStream(classify, RATE, CLASSES, window=5.0, hop=6.0)
    with pytest.raises(EvaluationError, match="scores of shape"):
        MeterStream(classify, RATE, ("3", "4")).push(piece())
    assert DURATION > 0
