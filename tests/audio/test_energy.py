"""Energy on signals whose answers are known: loudness within 0.1 LU, bands within 0.2 dB, onsets counted."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import sosfreqz

from beatmeter.audio.energy import FLOOR, RATE, Energy, EnergyMeter, k_weighting, measure_energy
from beatmeter.errors import AudioError

SR = 24_000


def sine(hertz: float, dbfs: float, seconds: float, rate: int = SR) -> np.ndarray:
    return 10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def energy(wave: np.ndarray, rate: int = SR) -> Energy:
    meter = EnergyMeter(rate)
    meter.push(wave)
    return meter.finish()


def test_the_filters_are_those_that_the_standard_prints_for_48_khz() -> None:
    """ITU-R BS.1770, tables 1 and 2."""
    shelf, high_pass = k_weighting(48_000)
    printed = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    np.testing.assert_allclose(shelf / shelf[3], printed, atol=1e-6)
    np.testing.assert_allclose(high_pass, [1, -2, 1, 1, -1.99004745483398, 0.99007225036621], atol=1e-6)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
def test_loudness_of_sines(rate: int) -> None:
    """-23.0 LUFS for 997 Hz at -20 dBFS; elsewhere what the standard's filters at 48 kHz say."""
    hertz = np.array([50.0, 100.0, 997.0, 2000.0, 5000.0])
    _, gain = sosfreqz(k_weighting(48_000), hertz, fs=48_000)
    for f, db in zip(hertz, 20 * np.log10(np.abs(gain)), strict=True):
        found = energy(sine(f, -20.0, 4.0, rate), rate)
        wanted = -23.01 - 0.691 + db
        assert abs(found.integrated - wanted) < 0.1
        assert np.abs(found.momentary[2:] - wanted).max() < 0.1
        assert np.abs(found.short_term[10:] - wanted).max() < 0.1
        if f == 997:
            assert round(found.integrated, 1) == -23.0


def test_the_gates_leave_out_silence_and_what_is_quiet() -> None:
    """EBU Tech 3341, cases 3 and 4: quiet parts around the programme do not count."""
    parts = [(-36.0, 5.0), (-23.0, 20.0), (-36.0, 5.0)]
    wave = np.concatenate([sine(997.0, db, seconds) for db, seconds in parts])
    assert abs(energy(wave).integrated - -26.0) < 0.1  # one channel of the two that the case has
    quiet = np.concatenate([sine(997.0, -72.0, 5.0), wave, sine(997.0, -72.0, 5.0)])
    assert abs(energy(quiet).integrated - -26.0) < 0.1
    assert energy(np.zeros(SR)).integrated == -np.inf
    assert energy(np.zeros(SR)).momentary.max() <= FLOOR


def test_bands_of_sines_and_of_their_sum() -> None:
    parts = {"bass": (60.0, -12.0), "mid": (440.0, -20.0), "high": (6000.0, -30.0)}
    alone = {name: energy(sine(f, db, 3.0)) for name, (f, db) in parts.items()}
    both = energy(sum(sine(f, db, 3.0) for f, db in parts.values()))
    for name, (_, db) in parts.items():
        for found in (alone[name], both):
            assert np.abs(getattr(found, name) - (db - 3.01)).max() < 0.2, name
        assert all(getattr(alone[name], other).max() < db - 40 for other in parts if other != name)
    edge = energy(sine(140.0, -12.0, 3.0) + sine(160.0, -12.0, 3.0))
    assert np.abs(edge.bass - -15.01).max() < 0.2
    assert np.abs(edge.mid - -15.01).max() < 0.2


def test_bands_add_up_to_the_power_of_noise() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * SR)
    found = energy(noise)
    power = sum(10 ** (getattr(found, name) / 10) for name in ("bass", "mid", "high"))
    assert abs(10 * np.log10(power.mean()) - -20.0) < 0.1
    assert abs(found.mid.mean() - found.high.mean() - 10 * np.log10(3850 / 8000)) < 0.2


def test_a_change_of_level_is_where_it_is() -> None:
    found = energy(np.concatenate([sine(997.0, -40.0, 10.0), sine(997.0, -10.0, 10.0)]))
    assert np.flatnonzero(found.momentary > -27)[0] in (49, 50)
    assert np.flatnonzero(10 * np.log10(found.power) > -20)[0] == 50
    levels = found.of_spans(np.array([0.0, 10.0]), np.array([10.0, 20.0]))
    assert levels[0, 3] < 1.5
    assert levels[1, 3] > 9.5
    assert np.isnan(found.of_spans(np.array([30.0]), np.array([40.0]))).all()


def test_the_scale_of_an_even_track_is_even_and_of_an_absent_band_is_one() -> None:
    found = energy(sine(440.0, -20.0, 20.0))
    assert np.ptp(found.scale("mid")) < 0.5
    assert found.scale("high").max() == found.scale("bass").max() == 1
    steps = energy(np.concatenate([sine(440.0, db, 10.0) for db in (-40, -30, -20, -10)])).scale("overall")
    assert steps.min() == 1
    assert steps.max() == 10
    assert (np.diff(steps[25::50]) > 1.5).all()


@pytest.mark.parametrize("rate", [1.0, 3.0, 8.0])
def test_onsets_are_counted(rate: float) -> None:
    t = np.arange(12 * SR) / SR
    wave = 0.5 * np.random.default_rng(1).standard_normal(len(t)) * np.exp(-40 * ((t - 0.05) % (1 / rate)))
    found = energy(wave + 0.05 * np.sin(2 * np.pi * 220 * t))
    np.testing.assert_allclose(found.onsets[10:-10].mean(), rate, rtol=0.06)
    assert found.flux.mean() > 5 * energy(0.05 * np.sin(2 * np.pi * 220 * t)).flux[5:-5].mean()
    steady = sine(220.0, -20.0, 4.0) + sine(233.0, -20.0, 4.0)
    assert energy(steady).onsets[5:-5].max() == 0
    noise = energy(0.1 * np.random.default_rng(4).standard_normal(4 * SR))
    assert noise.onsets[5:-5].mean() < 1


def test_blocks_of_any_length_give_the_same() -> None:
    wave = 0.1 * np.random.default_rng(2).standard_normal(7 * SR + 3000)
    whole = energy(wave)
    meter = EnergyMeter()
    cuts = [0, 1, 100, 101, 2500, 30_000, 30_001, 100_000, len(wave)]
    for start, end in pairwise(cuts):
        meter.push(wave[start:end])
    pieces = meter.finish()
    for name in ("momentary", "short_term", "bass", "mid", "high", "flux", "onsets", "power"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    assert len(whole) == len(whole.times) == int(7 * RATE) + 1
    assert pieces.integrated == pytest.approx(whole.integrated)


def test_memory_does_not_grow_with_the_audio() -> None:
    """Ten times the audio needs less than a second of it more."""
    block = 0.1 * np.random.default_rng(3).standard_normal(2 * SR)
    peaks = []
    for blocks in (3, 30):
        meter = EnergyMeter()
        tracemalloc.start()
        for _ in range(blocks):
            meter.push(block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 8 * SR


def test_a_file_and_what_is_no_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([sine(997.0, -20.0, 6.0, 48_000)] * 2, axis=1), 48_000)
    assert abs(measure_energy(tmp_path / "a.wav").integrated - -23.0) < 0.1
    with pytest.raises(AudioError, match="not finite"):
        EnergyMeter().push(np.array([0.0, np.nan]))
    with pytest.raises(AudioError, match="less than a tenth"):
        energy(np.zeros(100))
    with pytest.raises(AudioError, match="at 8010 Hz"):
        EnergyMeter(8010)
