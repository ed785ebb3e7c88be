"""Blocks of sound from an input device, by PortAudio (the package sounddevice, an extra)."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import AudioError, ConfigError

BLOCK = 0.1  # seconds
PATIENCE = 5.0  # seconds without a block after which the device is said to be gone


@dataclass(frozen=True)
class Device:
    """An input device: its number or name, and the rate (Hz) at which it is opened."""

    number: int
    name: str
    sample_rate: int
    channels: int


def portaudio() -> Any:
    """The package sounddevice. Raises ConfigError where it, or the library below it, is not installed."""
    try:
        return import_module("sounddevice")
    except ImportError:
        raise ConfigError(
            "listening to an input device needs sounddevice, which is not installed",
            "pip install 'beatmeter[listen]'",
        ) from None
    except OSError as error:  # the library is not there
        raise ConfigError(
            f"sounddevice finds no PortAudio: {error}",
            "Install it, for instance: apt-get install libportaudio2",
        ) from None


def devices() -> list[Device]:
    """All devices that have an input."""
    found = portaudio().query_devices()
    return [_device(number, about) for number, about in enumerate(found) if about["max_input_channels"] > 0]


def choose(wanted: str | None = None) -> Device:
    """The device of this number or the only one whose name holds this text; by default what the system
    prefers. Raises AudioError where there is none."""
    inputs = devices()
    if not inputs:
        raise AudioError("this machine has no input device", "Plug one in, or use `beatmeter predict FILE`.")
    if wanted is None:
        preferred = portaudio().default.device[0]
        return next((d for d in inputs if d.number == preferred), inputs[0])
    fitting = [d for d in inputs if wanted in (str(d.number), d.name)]
    fitting = fitting or [d for d in inputs if wanted.lower() in d.name.lower()]
    if len(fitting) != 1:
        known = ", ".join(f"{d.number} {d.name}" for d in inputs)
        what = "no input device is" if not fitting else f"{len(fitting)} input devices are"
        raise AudioError(f"{what} called {wanted!r}", f"Known: {known}.")
    return fitting[0]


def _device(number: int, about: Any) -> Device:
    rate, channels = round(about["default_samplerate"]), int(about["max_input_channels"])
    return Device(number, str(about["name"]), rate, min(2, channels))


def blocks(device: Device) -> Iterator[Float[np.ndarray, " sample"]]:
    """Mono blocks at the device's rate, for as long as they are asked for.

    Blocks that nobody asked for in time wait: a `MeterStream` that falls behind skips what is late. Raises
    AudioError for a device that cannot be opened, or that gives nothing any more.
    """
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def take(samples: np.ndarray, frames: int, at: Any, status: Any) -> None:
        waiting.put(samples.mean(axis=1, dtype=np.float32))

    library = portaudio()
    try:
        stream = library.InputStream(
            samplerate=device.sample_rate,
            device=device.number,
            channels=device.channels,
            dtype="float32",
            blocksize=round(BLOCK * device.sample_rate),
            callback=take,
        )
    except (library.PortAudioError, ValueError) as error:
        raise AudioError(
            f"cannot listen to {device.name}: {error}",
            "Is another program using it? Choose another --device.",
        ) from None
    with stream:
        while True:
            try:
                yield waiting.get(timeout=PATIENCE)
            except queue.Empty:
                raise AudioError(
                    f"{device.name} gives no sound any more", "Is it still plugged in?", kind="machine"
                ) from None
