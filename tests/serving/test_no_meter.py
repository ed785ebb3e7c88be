"""The models that ship hear no meter where there is none, are never sure of it, and still hear the meter of
music.

BEATMETER_FULL=1 hears 720 sounds with every model instead of 24 with the default one, and all of the real
music.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from beatmeter.audio.decode import load
from beatmeter.cli import cli
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth import render
from beatmeter.datasets.synth.meterless import FITTED, KINDS, render_meterless
from beatmeter.evaluation.calibration import Calibration
from beatmeter.serving.answer import Answer
from beatmeter.serving.evidence import PARTS, summarise
from beatmeter.serving.models import EnsembleFolder, shipped_model, shipped_models
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import DataConfig

FULL = bool(os.environ.get("BEATMETER_FULL"))
MODELS = sorted(shipped_models()["models"]) if FULL else [shipped_models()["default"]]
RATE = 24_000


@pytest.fixture(scope="module", params=MODELS)
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return Predictor.load(request.param, torch.device("cpu"))


def shares(answers: list[Answer]) -> tuple[float, float]:
    """How many hear no meter, and how many are sure."""
    return float(np.mean([a.meter is None for a in answers])), float(np.mean([a.sure for a in answers]))


def test_sounds_without_meter_are_refused(predictor: Predictor) -> None:
    each = range(2_000_000, 2_000_000 + (30 if FULL else 1))
    answers = {
        kind: [
            predictor.predict(render_meterless(seed, kind, seconds=5.0 + seed % 3 * 5), RATE) for seed in each
        ]
        for kind in KINDS
    }
    refused, sure = shares([a for of_kind in answers.values() for a in of_kind])
    assert refused >= (0.95 if FULL else 0.9), {kind: shares(of_kind)[0] for kind, of_kind in answers.items()}
    assert sure <= 0.02
    for a in answers["noise"]:
        assert a.to_json() | {"scores": 0, "gap": 0, "heard": 0} == {
            "meter": None,
            "heard": 0,
            "sure": False,
            "second": None,
            "grouping": None,
            "subdivision": None,
            "scores": 0,
            "gap": 0,
            "seconds": a.seconds,
        }


@pytest.mark.parametrize(
    "model", [m for m in sorted(shipped_models()["models"]) if not EnsembleFolder(shipped_model(m)).exists()]
)
def test_every_member_was_fitted_to_refuse_kinds_that_it_does_not_know(model: str) -> None:
    """What its calibration states: music by fits that do not know it, each kind of sound likewise."""
    presence = Calibration.load(shipped_model(model) / "calibration.json").presence
    assert presence is not None
    music, sounds = presence.about["music"], presence.about["sounds"]
    assert (music["groups"], sounds["items"], set(sounds["refused"])) == (600, 840, set(FITTED))
    assert music["refused"] <= 0.0251
    assert np.mean(list(sounds["refused"].values())) >= 0.94


def test_peaks_of_a_beat_stand_out_of_their_surroundings() -> None:
    lag = torch.linspace(0, 1, 160)
    smooth = (1 - lag).expand(1, 2, 3, 160)
    beat = smooth.clone()
    beat[..., 20::20] += 0.3
    constant = torch.ones(1, 2, 3, 160)
    assert summarise(smooth).shape == (1, 3 * 3 * PARTS)
    level, spread, height = summarise(beat).view(PARTS, 3, 3).unbind(1)
    assert (height > 0.25).all()
    assert (spread > 10 * summarise(smooth).view(PARTS, 3, 3)[:, 1]).all()
    torch.testing.assert_close(level[0], torch.full((3,), float(beat[0, 0, 0, :40].mean())))
    torch.testing.assert_close(summarise(constant).view(PARTS, 3, 3)[:, 1:], torch.zeros(PARTS, 2, 3))


def test_synthetic_music_is_heard(predictor: Predictor) -> None:
    answers = [
        predictor.predict(render((9 << 32) + i, seconds=20.0).audio, RATE) for i in range(100 if FULL else 40)
    ]
    refused, sure = shares(answers)
    assert refused <= 0.05
    assert sure > 0.3, "else the statement is of no use"


def test_real_music_is_heard(predictor: Predictor, real_data: Path) -> None:
    tracks = open_dataset(real_data / "meter-dev", DataConfig(), predictor.classes).tracks
    answers = [predictor.predict(load(t.path), RATE) for t in (tracks if FULL else tracks[::8])]
    assert shares(answers)[0] <= (0.05 if FULL else 0.11)


def test_the_command_says_so(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * RATE)
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    value = json.loads(CliRunner().invoke(cli, ["predict", str(tmp_path / "noise.wav"), "--json"]).stdout)
    assert (value["meter"], value["sure"], value["second"]) == (None, False, None)
    assert value["heard"] < 0.5
    assert "noise.wav\tnone\t" in CliRunner().invoke(cli, ["predict", str(tmp_path / "noise.wav")]).stdout


def test_a_timeline_of_noise_hears_no_meter_anywhere(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(25 * RATE), RATE)
    value = json.loads(CliRunner().invoke(cli, ["timeline", str(tmp_path / "noise.wav"), "--json"]).stdout)
    assert len(value["windows"]) == 7
    assert all(window["meter"] is None and window["heard"] < 0.5 for window in value["windows"])
    assert [segment["meter"] for segment in value["segments"]] == [None]
    assert (
        CliRunner().invoke(cli, ["timeline", str(tmp_path / "noise.wav")]).stdout.splitlines()[1].split()[2]
        == "none"
    )
