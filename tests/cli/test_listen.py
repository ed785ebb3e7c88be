"""`beatmeter listen` with a device that a test plays."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.datasets.synth import render
from beatmeter.errors import AudioError, ConfigError
from beatmeter.serving import microphone
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.streaming import MeterStream

RATE = 48_000


class PortAudioError(Exception):
    """What sounddevice raises."""


class FakeDevice:
    """sounddevice with one output and two inputs; what the second one hears is `wave`, at once."""

    PortAudioError = PortAudioError

    def __init__(self, wave: np.ndarray, busy: bool = False) -> None:
        self.wave, self.busy, self.closed = wave, busy, 0
        self.default = SimpleNamespace(device=[2, 0])
        self.opened: dict[str, Any] = {}

    def query_devices(self) -> list[dict[str, Any]]:
        names = [("speakers", 0), ("built-in microphone", 1), ("USB interface", 8)]
        return [
            {"name": name, "max_input_channels": n, "default_samplerate": float(RATE)} for name, n in names
        ]

    def InputStream(self, callback: Callable[..., None], blocksize: int, **given: Any) -> FakeDevice:  # noqa: N802
        if self.busy:
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.opened = given
        for a in range(0, len(self.wave) - blocksize + 1, blocksize):
            mono = self.wave[a : a + blocksize]
            callback(np.stack([mono, np.zeros_like(mono)], axis=1), blocksize, None, None)
        return self

    def __enter__(self) -> FakeDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return render(3, meter=3, seconds=9.0, sample_rate=RATE).audio.astype(np.float32)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, wave: np.ndarray) -> FakeDevice:
    fake = FakeDevice(wave)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)  # type: ignore[arg-type]
    return fake


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["listen", *arguments])


def test_answers_come_as_the_stream_gives_them(device: FakeDevice) -> None:
    done = run("--json", "--seconds", "9", "--device", "cpu")
    assert done.exit_code == 0, done.output
    said = [json.loads(line) for line in done.stdout.splitlines()]
    predictor = Predictor.load("spectral-lag")
    stream = MeterStream(predictor, RATE, predictor.classes, late=float("inf"))
    told = stream.push(device.wave / 2) + stream.finish()  # one of two channels is dead
    assert [s["time"] for s in said] == [t.time for t in told] == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert np.allclose([s["scores"] for s in said], [t.scores for t in told], atol=1e-4)
    assert [s["meter"] for s in said] == [t.meter for t in told]
    assert device.closed == 1
    assert (device.opened["device"], device.opened["channels"]) == (2, 2)
    assert "listening to USB interface" in done.stderr


def test_in_a_pipe_answers_are_columns(device: FakeDevice) -> None:
    done = run("--seconds", "5.5", "--input", "built-in")
    assert device.opened["device"] == 1
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["4.0", "5.0"]
    assert {len(row) for row in rows} == {5}


def test_inputs_are_listed(device: FakeDevice) -> None:
    assert run("--inputs").stdout.splitlines() == [
        "1\tbuilt-in microphone\t48000 Hz",
        "2\tUSB interface\t48000 Hz",
    ]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("mic array", "no input device is called"), ("i", "2 input devices are called"), ("0", "no input")],
)
def test_an_unclear_device_is_refused_with_those_there_are(
    device: FakeDevice, wanted: str, reason: str
) -> None:
    with pytest.raises(AudioError, match=f"{reason}.*1 built-in microphone, 2 USB interface"):
        microphone.choose(wanted)


def test_a_device_that_is_taken_is_one_line(device: FakeDevice) -> None:
    device.busy = True
    done = run("--seconds", "5")
    assert isinstance(done.exception, AudioError)
    assert "cannot listen to USB interface: Device unavailable" in str(done.exception)


def test_no_device_and_no_library_are_refused(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "query_devices", lambda: [])
    with pytest.raises(AudioError, match="no input device"):
        microphone.choose()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConfigError, match=r"pip install 'beatmeter\[listen\]'"):
        microphone.portaudio()


def test_a_device_that_falls_silent_is_told(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "PATIENCE", 0.0)
    with pytest.raises(AudioError, match="gives no sound any more"):
        list(microphone.blocks(microphone.choose()))
