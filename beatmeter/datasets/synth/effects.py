"""What happens to the mix: one linear chain (equaliser, room, band limit) by overlap-save, then the rest."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import fft

from beatmeter.datasets.synth.clip import Audio
from beatmeter.datasets.synth.options import SynthOptions

BLOCK = 1 << 16


@cache
def _tail(rate: int) -> Audio:
    """Two seconds of white noise for rooms, the same in every process."""
    return np.random.Generator(np.random.PCG64(22)).standard_normal(2 * rate).astype(np.float32)


@cache
def _hiss(samples: int) -> Audio:
    """Noise to lay under clips; read from a random place."""
    return np.random.Generator(np.random.PCG64(23)).standard_normal(samples).astype(np.float32)


def apply_effects(audio: Audio, rng: np.random.Generator, options: SynthOptions, rate: int) -> Audio:
    """Draw and apply a chain; the result has a random level with a peak of at most 0.99."""
    room = rng.random() < options.room
    equalise = rng.random() < options.equaliser
    codec = rng.random() < options.codec
    if room or equalise or codec:
        audio = _linear(audio, rng, rate, room=room, equalise=equalise, codec=codec)
    if rng.random() < options.compressor:
        audio = _compress(audio, rng, rate)
    peak = max(1e-6, float(np.abs(audio).max(initial=0.0)))
    if rng.random() < options.overdrive:
        drive = np.float32(rng.uniform(1.2, 4.0) / peak)
        audio = np.tanh(audio * drive)
        peak = max(1e-6, float(np.abs(audio).max(initial=0.0)))
    if rng.random() < options.noise:
        level = peak * 10 ** (rng.uniform(-75, -30) / 20)
        hiss = _hiss(1 << 20)
        start = int(rng.integers(0, len(hiss) // 4))
        noise = (
            np.resize(hiss[start:], len(audio))
            if len(audio) > len(hiss) - start
            else hiss[start : start + len(audio)]
        )
        if rng.random() < 0.5:  # darker: a two-sample mean
            noise = 0.7 * (noise + np.roll(noise, 1))
        audio = audio + np.float32(level) * noise
    peak = max(1e-6, float(np.abs(audio).max(initial=0.0)))
    target = float(10 ** (rng.uniform(-26, -0.1) / 20))
    audio = audio * np.float32(target / peak)
    if codec and rng.random() < 0.4:
        step = np.float32(2.0 ** -int(rng.integers(7, 13)))
        audio = np.round(audio / step) * step
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def _linear(
    audio: Audio, rng: np.random.Generator, rate: int, *, room: bool, equalise: bool, codec: bool
) -> Audio:
    taps = 1
    response = np.zeros(BLOCK, dtype=np.float32)
    response[0] = 1.0
    if room:
        time = float(np.exp(rng.uniform(np.log(0.12), np.log(1.6))))
        length = int(min(1.1, time) * rate)
        t = np.arange(length, dtype=np.float32) / np.float32(rate)
        start = int(rng.integers(0, rate // 2))
        tail = _tail(rate)[start : start + length] * np.exp(-t * np.float32(6.9 / time))
        gap = int(rng.uniform(0.002, 0.03) * rate)
        tail[:gap] = 0
        wet = 10 ** (rng.uniform(-22, -3) / 20)
        response[:length] += tail * np.float32(wet / max(1e-6, float(np.sqrt(np.sum(tail**2)))))
        taps = length
    spectrum = fft.rfft(response)
    hertz = np.arange(len(spectrum), dtype=np.float32) * np.float32(rate / BLOCK)
    gain = np.ones(len(spectrum), dtype=np.float32)
    if equalise:
        octaves = np.log2(np.maximum(hertz, 20.0) / 1000.0)
        gain *= 10 ** (np.float32(rng.uniform(-3, 3) / 20) * octaves)
        for _ in range(int(rng.integers(0, 4))):
            centre, width = rng.uniform(-4, 3), rng.uniform(0.4, 2.0)
            gain *= 10 ** (
                np.float32(rng.uniform(-10, 8) / 20) * np.exp(-(((octaves - centre) / width) ** 2))
            )
        if rng.random() < 0.35:
            gain /= np.sqrt(1 + (np.float32(rng.uniform(30, 180)) / np.maximum(hertz, 1.0)) ** 4)
    if codec:
        edge = (
            float(rng.uniform(3000, 0.48 * rate))
            if rng.random() < 0.5
            else float(rng.uniform(min(8000, 0.4 * rate), 0.48 * rate))
        )
        gain /= np.sqrt(1 + (hertz / np.float32(edge)) ** 24)
    spectrum *= gain
    # A zero-phase gain spreads a little to negative times: allow it as circular pre-ring of one block.
    ring = 2048
    hop = BLOCK - taps - 2 * ring
    count = -(-len(audio) // hop)
    padded = np.zeros(count * hop + BLOCK, dtype=np.float32)
    padded[taps + ring : taps + ring + len(audio)] = audio
    out = np.empty(count * hop, dtype=np.float32)
    for index in range(count):
        block = fft.irfft(fft.rfft(padded[index * hop : index * hop + BLOCK]) * spectrum, BLOCK)
        out[index * hop : (index + 1) * hop] = block[taps + ring : taps + ring + hop]
    return out[: len(audio)]


def _compress(audio: Audio, rng: np.random.Generator, rate: int) -> Audio:
    """A feed-forward compressor with a gain for every 10 ms, interpolated."""
    step = rate // 100
    frames = len(audio) // step
    if frames < 4:
        return audio
    level = np.sqrt(np.mean(audio[: frames * step].reshape(frames, step) ** 2, axis=1)) + 1e-6
    memory = float(np.exp(-1 / rng.uniform(3, 30)))
    smooth = np.empty(frames)
    state = 0.0
    for index, value in enumerate(level.tolist()):
        state = value if value > state else memory * state + (1 - memory) * value
        smooth[index] = state
    threshold = float(np.quantile(smooth, rng.uniform(0.3, 0.9)))
    gain = np.minimum(1.0, (threshold / smooth)) ** rng.uniform(0.3, 0.85)
    ramp = np.repeat(np.concatenate([gain, gain[-1:]]), step)[: len(audio)].astype(np.float32)
    if len(ramp) < len(audio):
        ramp = np.pad(ramp, (0, len(audio) - len(ramp)), mode="edge")
    kernel = np.cumsum(np.concatenate([np.full(step, ramp[0]), ramp]), dtype=np.float64)
    return (audio * ((kernel[step:] - kernel[:-step]) / step).astype(np.float32)[: len(audio)]).astype(
        np.float32
    )
