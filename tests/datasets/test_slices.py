"""Slices of hard music: the same bytes everywhere, as slow, bent, quick or doubled as they say; and the mixes
that were there before keep their bytes."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from beatmeter.datasets.groupings import GROUPINGS, grouping_of, kind_of, read_grouping
from beatmeter.datasets.synth import SLICES, render, render_slice
from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synth.dances import DANCES, draw_dance
from beatmeter.datasets.synth.disguises import with_hemiolas, with_triplets
from beatmeter.datasets.synth.forms import FORMS, Form
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.patterns import FIGURES
from beatmeter.datasets.synth.slices import SLICE_MIXES, draw_seconds, draw_slice
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import draw_rubato, make_layout
from beatmeter.datasets.synth.touch import Touch
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import ConfigError

SHORT = {"seconds": 8.0, "sample_rate": 12000}
# seed, style, first beats (s), and level of each second of 6: what `render` gave before there were slices
BEFORE: tuple[tuple[int, str, list[float], list[float]], ...] = (
    (0, "machine", [0.0, 0.6757, 1.3515], [0.0292, 0.026, 0.0297, 0.0258, 0.0288, 0.0265]),
    (1, "machine", [1.3003, 2.4873, 4.07], [0.0229, 0.0254, 0.0218, 0.0236, 0.0223, 0.0219]),
    (2, "blocks", [0.3494, 0.7504, 1.1515], [0.014, 0.013, 0.0119, 0.0125, 0.0142, 0.0112]),
    (3, "percussion", [0.0, 1.9058, 3.8116], [0.0118, 0.0128, 0.0101, 0.0103, 0.00994, 0.0138]),
    (5, "quartet", [0.6678, 1.5138, 2.1906], [0.0676, 0.0618, 0.0588, 0.0473, 0.0578, 0.0668]),
    (8, "song", [0.0, 0.983, 2.4575], [0.135, 0.0695, 0.114, 0.0855, 0.0905, 0.138]),
    (13, "loops", [0.4153, 1.7951, 3.1748], [0.0488, 0.00755, 0.0548, 0.103, 0.0382, 0.00723]),
    (21474836487, "piano", [0.3313, 1.0467, 1.762], [0.161, 0.141, 0.106, 0.101, 0.148, 0.112]),
)


@pytest.mark.parametrize(("seed", "style", "beats", "levels"), BEFORE)
def test_clips_of_earlier_mixes_stay_as_they_were(
    seed: int, style: str, beats: list[float], levels: list[float]
) -> None:
    clip = render(seed, seconds=6.0, sample_rate=12000)
    assert clip.style == style
    assert clip.beats[:3] == pytest.approx(beats, abs=1e-3)
    assert np.sqrt(np.mean(clip.audio.reshape(6, -1) ** 2, axis=1)) == pytest.approx(levels, rel=0.01)


@pytest.mark.parametrize("name", SLICES)
def test_every_slice_plays_every_class_the_same_every_time(name: str) -> None:
    for meter in METERS:
        clip = render_slice(40 + meter, name, meter=meter, **SHORT)
        assert (clip.slice, clip.primary) == (name, meter)
        assert np.sqrt(np.mean(clip.audio**2)) > 1e-4
        assert set(clip.downbeats) == set(clip.beats[clip.beat_numbers == 1])
        assert (len(clip.meters) == 2) == (name == "pairs") or name == "plain"
    again = render_slice(51, name, meter=11, **SHORT)
    assert hashlib.sha256(again.audio).digest() == hashlib.sha256(clip.audio).digest()


def test_slow_bars_are_slow_in_every_class() -> None:
    for meter in METERS:
        bars = []
        for seed in range(5):
            clip = render_slice(seed, "slow", meter=meter, seconds=30.0, sample_rate=8000)
            bars.append(60 * sum(clip.grouping) / clip.tempo)
        assert min(bars) > 4.3
        assert max(bars) > 6.5


def test_dances_are_of_their_tempo_and_their_figures_are_there() -> None:
    names = {figure.name for figure in FIGURES}
    rng = np.random.default_rng(0)
    for meter in METERS:
        form, pulse = draw_dance(rng, meter, SynthOptions())
        assert form.meter == meter
        assert 0.4 < form.pulses * pulse < 4.6
    assert {figure for dance in DANCES for figure in dance.figures} <= names
    assert all(len(r) % d.form.pulses == 0 or d.form.pulses % len(r) == 0 for d in DANCES for r in d.rhythms)


def test_a_dance_whose_pulse_is_too_fast_for_any_rhythm_has_one_onset_a_group() -> None:
    clip = render_slice((41 << 32) + 414, "dance", meter=3, **SHORT)
    assert 60 / clip.tempo < 0.085, "s a pulse"
    assert clip.primary == 3


def test_the_tempo_bends_as_far_as_it_says() -> None:
    layout = make_layout(Form(4, "4/4", (4,), "quarter"), pulses=200, division=4)
    phrases = layout.starts[1::4]
    reach = []
    for depth in (0.0, 0.1, 0.35):
        far = []
        for seed in range(6):
            timing = draw_rubato(
                np.random.default_rng(seed),
                pulse=0.5,
                bars=layout.starts,
                phrases=phrases,
                closing=phrases[3::4],
                origin=0.0,
                depth=depth,
            )
            bars = np.log(np.diff(timing.at(layout.starts)))
            far.append(float(np.abs(bars - np.median(bars)).max()))
        reach.append(float(np.median(far)))
    assert reach[0] < 0.03 < reach[1] < 0.25
    assert 0.25 < reach[2] < 0.8


def test_both_layers_of_a_pair_are_heard() -> None:
    """Taking one layer's meter away changes what is heard from beginning to end."""
    for seed in range(4):
        clip = render_slice(seed, "pairs", seconds=12.0, sample_rate=8000)
        assert len(clip.meters) == 2
        assert min(clip.meters.values()) >= 0.75
        first, second = clip.downbeats, clip.second_downbeats
        assert second[0] < 12 / 2 < second[-1] or np.diff(second).mean() > 3
        assert not (len(first) == len(second) and np.allclose(first, second)) or clip.kind == "polyrhythm"


def test_disguises_last_for_moments() -> None:
    layout = make_layout(Form(3, "3/4", (3,), "quarter"), pulses=48, division=2)
    phrases = [Phrase(at, 4, "A", False) for at in range(0, layout.bars - 3, 4)]
    table = np.array([[s + k, 1.0, 60 + k, 0.5] for s in layout.starts[:-1] for k in range(3)])
    changed = with_hemiolas(np.random.default_rng(0), table, layout, phrases, 1.0)
    end = float(layout.starts[4])
    inside = changed[(changed[:, 0] >= end - 6) & (changed[:, 0] < end), 0]
    assert set(inside - (end - 6)) == {0.0, 2.0, 4.0}
    before = changed[changed[:, 0] < end - 6, 0] - layout.starts[0]
    assert set(before % 3) == {0.0, 1.0, 2.0}
    triplets = with_triplets(np.random.default_rng(0), table, layout, phrases, 0.3)
    third = np.abs(triplets[:, 0] % 1 - 1 / 3) < 1e-6
    assert 0 < third.sum() < len(table) / 2


def test_hands_roll_chords_and_hold_the_pedal() -> None:
    chord = np.array([[1.0, 0.5, 64, 0.5], [1.0, 0.5, 60, 0.5], [3.0, 0.5, 60, 0.5]])
    changes = np.array([0.0, 4.0])
    played = Touch(0.02, 0.03, 1.0, True)(np.random.default_rng(0), chord, 0.5, changes)
    assert played[:, 0] == pytest.approx([0.96, 1.02, 2.96])
    assert played[:, 2].tolist() == [60, 64, 60]
    assert played[:, 1] == pytest.approx([3.0, 3.0, 1.0])


def test_groupings_have_one_name_and_a_kind() -> None:
    named = {(str(f.meter), f.groups): grouping_of(str(f.meter), f.groups) for f in FORMS}
    assert named["3", (3, 3)] == "3+3"
    assert named["4", (2,)] == named["4", (4, 4, 4, 4)] == named["4", (4,)] == "4"
    assert named["5", (3, 2, 3, 2)] == "3+2"
    assert named["7", (4, 3)] == "2+2+3"
    assert named["9", (5, 4)] == "3+2+2+2"
    assert named["5", (5,)] == "3+2"
    assert named["7", (7,)] is None
    assert {name for _, groups in GROUPINGS.items() for name in groups} == {*named.values()} - {None}
    assert [kind_of(n) for n in ("4", "3+3", "3+3+2", "2+2+3")] == [
        "simple",
        "compound",
        "additive",
        "additive",
    ]
    assert read_grouping("2+2+3") == (2, 2, 3)
    assert read_grouping("waltz") == ()
    assert grouping_of("6", (3, 3)) is None


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'slow'"):
        render_slice(0, "slov")
    with pytest.raises(ConfigError, match="of the slice rubato"):
        render_slice(0, "slow", rubato=0.3)
    with pytest.raises(ConfigError, match="meter must be one of"):
        render_slice(0, "slow", meter=6)


def test_a_hard_set_tells_its_slices_by_column(tmp_path: Path) -> None:
    synthesise(tmp_path / "hard", 12, SynthPlan(seed=3, seconds=4.0, sample_rate=8000, mix="hard"))
    with (tmp_path / "hard" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seeds = [int(row["seed"]) for row in rows]
    assert [row["slice"] for row in rows] == [draw_slice(seed) for seed in seeds]
    assert [float(row["seconds"]) for row in rows] == pytest.approx(
        [draw_seconds(seed, 4.0) for seed in seeds], abs=1e-3
    )
    for row in rows:
        assert row["source"] == f"synthetic {row['slice']}"
        assert float(row["bar"]) > 0.3
        assert (float(row["rubato"]) > 0) == (row["slice"] == "rubato")
        assert row["subdivision"] in ("simple", "compound", "additive", "")


def test_slices_are_drawn_as_their_mix_says() -> None:
    for mix, weights in SLICE_MIXES.items():
        drawn = [draw_slice(seed, mix) for seed in range(1500)]
        assert sum(weights.values()) == pytest.approx(1)
        assert all(abs(drawn.count(name) / 1500 - weights.get(name, 0)) < 0.04 for name in SLICES)


def test_two_layers_may_be_in_one_meter() -> None:
    """Of the same players as pairs, each layer as loud: what tells them apart is the second bar line."""
    one, two = (
        render_slice(3, name, meter=4, seconds=12.0, sample_rate=8000) for name in ("layers", "pairs")
    )
    assert one.style == two.style
    assert (one.meters, len(one.second_downbeats)) == ({4: 1.0}, 0)
    assert len(two.meters) == 2
    early, late = (np.sqrt(np.mean(part**2)) for part in np.split(one.audio, 2))
    assert 0.5 < early / late < 2
