"""Robustness: audio is changed as it says, and points count what a model that can be known hears."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.errors import BeatmeterError, DataError
from beatmeter.experiments.robustness import WAYS, robustness
from beatmeter.experiments.robustness.figure import robustness_figure
from beatmeter.schema import Track

RATE = 24_000


def tone(seconds: float = 12.0, hz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def changed(name: str, level: float, wave: np.ndarray) -> np.ndarray:
    return WAYS[name].change(wave, RATE, level, np.random.default_rng(0))


def pitch(wave: np.ndarray) -> float:
    middle = wave[len(wave) // 4 : 3 * len(wave) // 4]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle))


def test_every_way_changes_what_it_says() -> None:
    wave = tone()
    noise = changed("noise", 10, wave) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.1)
    assert pitch(changed("pitch", 3, wave)) == pytest.approx(440 * 2 ** (3 / 12), rel=0.01)
    assert len(changed("pitch", 3, wave)) == len(wave)
    faster = changed("speed", 1.25, wave)
    assert len(faster) == pytest.approx(len(wave) / 1.25, rel=0.01)
    assert pitch(faster) == pytest.approx(440, rel=0.01)
    assert np.abs(changed("gain", -20, wave)).max() == pytest.approx(0.03, rel=0.01)
    assert np.abs(changed("gain", 12, wave)).max() <= 1
    coded = changed("mp3", 64, wave)
    assert pitch(coded) == pytest.approx(440, rel=0.01)
    assert len(coded) == pytest.approx(len(wave), abs=0.2 * RATE)


class Loud:
    """Hears 3 where audio is louder than a level, else 4."""

    scorer = SimpleNamespace(sample_rate=RATE)
    classes = ("3", "4")

    def predict(self, wave: np.ndarray, rate: int) -> Any:
        assert rate == RATE
        return SimpleNamespace(meter="3" if np.sqrt(np.mean(wave**2)) > 0.1 else "4")


@pytest.fixture
def tracks(tmp_path: Path) -> list[Track]:
    found = []
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.wav", tone(12.0 if i else 6.0), RATE)
        found.append(
            Track(
                str(i),
                tmp_path / f"{i}.wav",
                {"3": 1.0},
                group=str(i),
                extra={"tempo": "60" if i < 6 else "121.5"},
            )
        )
    return found


def test_points_count_the_clips_that_are_right(tracks: list[Track]) -> None:
    gain, length, tempo = robustness(Loud(), tracks, ("gain", "length"))  # type: ignore[arg-type]
    by_level = {p.level: p for p in gain.points}
    assert [by_level[x].accuracy.value for x in (-30, -20, -10, 0, 6)] == [0, 0, 0, 1, 1]
    assert by_level[0].accuracy.low < 1
    assert {p.level: p.clips for p in length.points} == {5: 12, 7.5: 11, 10: 11}
    assert [(p.level, p.clips) for p in tempo.points] == [(60.0, 6), (120.0, 6)]
    assert len(robustness_figure([gain, length, tempo]).axes) == 4


def test_a_long_track_is_changed_and_heard_in_pieces(
    tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 2 s in place of 300: the same answers, and no wave longer than a piece, but for the lengths
    that are asked for."""
    longest, heard = [], []

    class InPieces(Loud):
        def predict_blocks(self, blocks: Any, samples: int) -> Any:
            found = list(blocks)
            longest.extend(map(len, found))
            assert sum(map(len, found)) == samples
            return self.predict(np.concatenate(found), RATE)

        def predict(self, wave: np.ndarray, rate: int) -> Any:
            heard.append(len(wave) / RATE)
            return super().predict(wave, rate)

    whole = robustness(Loud(), tracks, ("gain", "length", "speed"))  # type: ignore[arg-type]
    monkeypatch.setattr("beatmeter.experiments.robustness.curves.PIECE", 2.0)
    assert robustness(InPieces(), tracks, ("gain", "length", "speed")) == whole  # type: ignore[arg-type]
    assert max(longest) <= 2 * RATE / 0.6 + 1
    assert {5.0, 7.5, 10.0} <= set(heard)


def test_wrong_orders_are_refused_in_words(tracks: list[Track], tmp_path: Path) -> None:
    (tmp_path / "0.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match="track 0"):
        robustness(Loud(), tracks, ("gain",))  # type: ignore[arg-type]
    error = CliRunner().invoke(cli, ["robustness", str(tmp_path), "--way", "nois"]).exception
    assert isinstance(error, BeatmeterError)
    assert "noise" in str(error)
