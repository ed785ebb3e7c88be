"""Groupings beside a meter: named of additive meters where they are sure, and nothing is heard for others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import beatmeter
from beatmeter.datasets.synth import render
from beatmeter.serving.answer import Answer
from beatmeter.serving.tempo import BeatsMeter, middle

CLASSES = ("3", "4", "5", "7", "9", "11")


def answer(meter: str, score: float = 0.97, seconds: float = 15.0, heard: float | None = 0.99) -> Answer:
    scores = np.where(np.array(CLASSES) == meter, score, 0.02)
    return Answer(CLASSES, scores, seconds, heard=heard)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    clip = render(123, meter=7, seconds=15.0, kind="single")
    path = tmp_path_factory.mktemp("seven") / "seven.wav"
    soundfile.write(path, clip.audio, clip.sample_rate, subtype="PCM_16")
    return path, "+".join(map(str, clip.grouping))


def test_a_sure_grouping_is_named(seven: tuple[Path, str]) -> None:
    path, grouping = seven
    meter = BeatsMeter(torch.device("cpu"))
    found = meter.complete(path, answer("7"))
    assert found.grouping == grouping
    assert found.to_json()["subdivision"] == "additive"
    assert sum(found.groupings["7"].values()) == pytest.approx(1, abs=1e-4)
    doubted = meter.complete(path, answer("7", 0.4))
    assert doubted.grouping is None, "a meter in doubt has no grouping"


def test_python_names_what_the_command_names(seven: tuple[Path, str]) -> None:
    path, grouping = seven
    assert beatmeter.predict(path).grouping == grouping
    wave, rate = soundfile.read(path)
    assert beatmeter.predict(wave, rate).grouping == grouping
    assert beatmeter.predict(np.stack([wave, wave], axis=1), rate).grouping == grouping
    assert next(iter(beatmeter.load().predict_files([path])))[1].grouping is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "left",
    [
        answer("4"),
        answer("7", seconds=8.0),
        answer("7", heard=None),
        answer("7", heard=0.2),
        replace(answer("7"), second="4"),
        replace(answer("7"), groupings={"7": {"2+2+3": 1.0}}),
    ],
)
def test_nothing_is_heard_where_no_grouping_is_named(left: Answer) -> None:
    assert BeatsMeter(torch.device("cpu")).complete(Path("no such file"), left) is left


def test_the_middle_of_a_track_is_cut_from_its_blocks() -> None:
    wave = np.arange(1000)
    parts, samples = middle((wave[a : a + 90] for a in range(0, 1000, 90)), 1000, 300)
    assert samples == 300
    assert np.concatenate(list(parts)).tolist() == wave[350:650].tolist()
    parts, samples = middle([wave], 1000, 2000)
    assert (samples, len(np.concatenate(list(parts)))) == (1000, 1000)
