"""The generator: the same bytes everywhere, an exact grid, honest labels, and no class told apart by a
triviality."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

from beatmeter.datasets.synth import Clip, SynthOptions, render
from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synth.forms import FORMS, draw_form
from beatmeter.datasets.synth.patterns import PATTERNS, Figure, Pattern
from beatmeter.datasets.synth.players import ROLES
from beatmeter.datasets.synth.styles import STYLES
from beatmeter.errors import ConfigError, SchemaError

CLEAN = SynthOptions(
    room=0,
    noise=0,
    equaliser=0,
    compressor=0,
    overdrive=0,
    codec=0,
    silence=0,
    polymeter=0,
    polyrhythm=0,
    hemiola=0,
)


def digest(seed: int) -> str:
    clip = render(seed, seconds=6.0)
    return hashlib.sha256(
        clip.audio.tobytes() + clip.beats.tobytes() + repr(clip.meters).encode()
    ).hexdigest()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """(160,) short clips over all classes and styles."""
    return [render(seed, seconds=20.0) for seed in range(160)]


def test_same_bytes_in_another_process_and_order() -> None:
    here = [digest(seed) for seed in (3, 4, 5)]
    code = (
        "import sys; sys.path.insert(0, 'tests/datasets'); from test_synth import digest; print(digest(5), "
        "digest(4), digest(3))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert here == there[::-1]
    assert len(set(here)) == 3


def test_every_clip_keeps_its_contract(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.audio.shape == (20 * clip.sample_rate,)
        assert np.sqrt(np.mean(clip.audio**2)) > 1e-4, f"seed {clip.seed} ({clip.style}) is silent"
        assert sum(clip.grouping) >= 2
        assert set(clip.downbeats) == set(clip.beats[clip.beat_numbers == 1])
        assert clip.sections
        assert all(start < end for start, end, _ in clip.sections)
    assert {clip.primary for clip in clips} == set(METERS)
    assert {clip.kind for clip in clips} >= {"single", "polymeter"}


def test_onsets_are_where_the_beats_are_said_to_be() -> None:
    options = SynthOptions(
        **{
            **vars(CLEAN),
            "style_weights": (("click", 1.0), *((s.name, 0.0) for s in STYLES if s.name != "click")),
        }
    )
    for seed in range(8):
        clip = render(seed, seconds=12.0, options=options)
        envelope = np.abs(clip.audio)
        for beat in clip.beats[(clip.beats > 0.05) & (clip.beats < 11.9)]:
            at = round(beat * clip.sample_rate)
            after, before = envelope[at : at + 480].max(), envelope[at - 240 : at - 12].max()
            assert after > 4 * before, f"seed {seed}: no onset at {beat:.3f} s"


def test_onset_energy_gathers_on_beats_in_music() -> None:
    ratios = []
    for seed in range(40):
        clip = render(seed, seconds=15.0, options=CLEAN)
        frames = np.sqrt(np.mean(clip.audio.reshape(-1, 240) ** 2, axis=1))
        rise = np.maximum(0, np.diff(np.log(frames + 1e-3)))
        near = np.zeros(len(rise), dtype=bool)
        for beat in clip.beats:
            centre = round(beat * 100)
            near[max(0, centre - 3) : centre + 4] = True
        if near.any() and not near.all():
            ratios.append(rise[near].mean() / (rise[~near].mean() + 1e-6))
    assert np.median(ratios) > 1.7


def test_polymeters_carry_both_labels_and_both_grids() -> None:
    for kind, meter in (
        ("polymeter", 5),
        ("polymeter", 4),
        ("polyrhythm", 3),
        ("hemiola", 3),
        ("hemiola", 4),
    ):
        clip = render(11, meter=meter, kind=kind, seconds=20.0)
        assert clip.kind == kind
        assert clip.primary == meter
        assert len(clip.meters) == 2
        assert clip.meters[meter] == 1.0
        first, second = np.diff(clip.downbeats).mean(), np.diff(clip.second_downbeats).mean()
        assert (kind == "polyrhythm") == bool(np.isclose(first, second, rtol=0.02))
    assert len(render(11, meter=7, kind="single", seconds=5.0).second_downbeats) == 0


def test_two_layers_sound_in_a_polymeter(clips: list[Clip]) -> None:
    for clip in clips:
        assert (clip.kind == "single") == (len(clip.meters) == 1) == (len(clip.second_downbeats) == 0)


@pytest.mark.parametrize("meter", METERS)
def test_bar_lengths_cover_real_music(meter: int) -> None:
    rng = np.random.default_rng(meter)
    drawn = [draw_form(rng, meter, SynthOptions()) for _ in range(400)]
    bars = np.array([form.pulses * pulse for form, pulse in drawn])
    assert np.quantile(bars, 0.05) < 1.75
    assert np.quantile(bars, 0.95) > 3.9
    assert 1.9 < np.median(bars) < 3.1
    assert len({form.name for form, _ in drawn}) >= 5


def test_no_class_is_told_apart_by_a_single_trivial_number(clips: list[Clip]) -> None:
    """One threshold pair on level, length or bar length gains little over guessing one class in six."""
    values: dict[str, list[float]] = defaultdict(list)
    labels = np.array([clip.primary for clip in clips])
    for clip in clips:
        values["rms"].append(float(np.log(np.sqrt(np.mean(clip.audio**2)))))
        values["peak"].append(float(np.abs(clip.audio).max()))
        values["bar"].append(float(np.log(np.diff(clip.downbeats).mean())))
    for name, column in values.items():
        bins = np.digitize(column, np.quantile(column, (0.2, 0.4, 0.6, 0.8)))
        right = sum(np.unique(labels[bins == b], return_counts=True)[1].max() for b in range(5))
        assert right / len(clips) < 0.40, f"{name} alone tells {right}/{len(clips)} classes"


def test_a_percussionist_alone_is_never_silent() -> None:
    """In this clip chance leaves every voice of the only player empty."""
    clip = render(2046, meter=3)
    assert clip.style == "percussion"
    assert np.abs(clip.audio).max() > 0.01


def test_ends_are_silent_where_the_grid_ends() -> None:
    options = SynthOptions(**{**vars(CLEAN), "silence": 1.0})
    ended = 0
    for seed in range(12):
        clip = render(seed, seconds=20.0, options=options)
        tail = clip.audio[int(max(clip.beats[-1] + 4.0, 0) * clip.sample_rate) :]
        ended += clip.beats[-1] < 19.0
        assert np.abs(tail).max(initial=0.0) < 1e-3
    assert ended > 2


def test_bar_phase_follows_the_downbeats() -> None:
    clip = render(2, seconds=10.0, kind="single")
    middle = (clip.downbeats[:-1] + clip.downbeats[1:]) / 2
    assert np.allclose(clip.bar_phase(middle), 0.5)
    assert np.allclose(clip.bar_phase(clip.downbeats[:-1]), 0.0)
    assert np.isnan(clip.bar_phase([clip.downbeats[-1] + 0.01, -5.0])).all()


@pytest.mark.parametrize("meter", METERS)
@pytest.mark.parametrize("style", [style.name for style in STYLES])
def test_every_style_plays_every_meter(style: str, meter: int) -> None:
    options = SynthOptions(style_weights=tuple((s.name, float(s.name == style)) for s in STYLES))
    clip = render(100 + meter, meter=meter, seconds=8.0, sample_rate=12000, options=options)
    assert clip.style == style
    assert clip.primary == meter
    assert np.abs(clip.audio).max() > 0.001


def test_tables_agree_with_each_other() -> None:
    groupings = {form.groups for form in FORMS}
    assert all(pattern.groups in groupings for pattern in PATTERNS)
    assert {part.role for style in STYLES for part in style.parts} <= {*ROLES, "double"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tempo": (200.0, 40.0)}, "tempo"),
        ({"bar_seconds": (0.0, 2.0)}, "bar_seconds"),
        ({"room": 1.5}, "room is a probability"),
        ({"polymeter": 0.9, "hemiola": 0.9}, "at most 1"),
        ({"class_weights": ((6, 1.0),)}, r"meters \[6\]"),
        ({"class_weights": ((3, 0.0),)}, "class_weights"),
        ({"style_weights": (("song", -1.0),)}, "style_weights"),
    ],
)
def test_options_say_what_is_wrong(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SynthOptions(**settings)  # type: ignore[arg-type]


def test_render_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="meter must be one of"):
        render(0, meter=6)
    with pytest.raises(ConfigError, match="kind must be one of"):
        render(0, kind="double")
    with pytest.raises(ConfigError, match="seconds"):
        render(0, seconds=0.0)
    with pytest.raises(ConfigError, match="Did you mean 'song'"):
        render(0, options=SynthOptions(style_weights=(("sing", 1.0),)))


def test_tables_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="no stroke 'kik'"):
        Pattern("typo", "4", kik="x...")
    with pytest.raises(ConfigError, match="no whole bar"):
        Pattern("short", "4", kick="x..")
    with pytest.raises(ConfigError, match="lanes must agree"):
        Figure("uneven", {2: "b. / .c", 3: "b.."})
    clip = render(0, seconds=2.0)
    with pytest.raises(SchemaError, match="primary"):
        Clip(**{**vars(clip), "primary": 99})
