"""Sounds without meter: the same in any process, in range, of every kind, and without a pulse that
returns."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from beatmeter.datasets.synth.meterless import FITTED, KINDS, UNSEEN, render_meterless
from beatmeter.errors import ConfigError

RATE = 8000


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_in_range_and_its_seeds_differ(kind: str) -> None:
    one, other = (render_meterless(seed, kind, seconds=3.0, sample_rate=RATE) for seed in (1, 2))
    for sound in (one, other):
        assert sound.shape == (3 * RATE,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert 0 < np.abs(sound).max() <= 0.99
    assert not np.array_equal(one, other)


def test_a_sound_is_the_same_in_every_process() -> None:
    code = "import hashlib; from beatmeter.datasets.synth.meterless import *; "
    code += (
        f"[print(hashlib.sha256(render_meterless(7, kind, seconds=2.0, sample_rate={RATE})).hexdigest()) "
        "for kind in KINDS]"
    )
    theirs = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert theirs == [
        hashlib.sha256(render_meterless(7, kind, seconds=2.0, sample_rate=RATE)).hexdigest() for kind in KINDS
    ]


def test_kinds_to_learn_from_and_kinds_to_measure_with_are_apart() -> None:
    assert set(FITTED) | set(UNSEEN) == set(KINDS)
    assert not set(FITTED) & set(UNSEEN)


def test_what_cannot_be_rendered_is_named() -> None:
    with pytest.raises(ConfigError, match="no sound 'nois' without meter"):
        render_meterless(0, "nois")
    with pytest.raises(ConfigError, match="seconds"):
        render_meterless(0, "noise", seconds=0.1)
