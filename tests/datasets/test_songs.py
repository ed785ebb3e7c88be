"""Whole songs: the same bytes everywhere, an exact structure, lengths as in music, and boundaries that no
trivial system finds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import find_annotation, read_annotation
from beatmeter.datasets.synth import SynthOptions
from beatmeter.datasets.synth.draws import stream
from beatmeter.datasets.synth.players import PERCUSSION
from beatmeter.datasets.synth.songs import Song, render_song
from beatmeter.datasets.synth.songs.forms import SECONDS, SONG_FORMS, draw_plan, draw_song_form, form_named
from beatmeter.datasets.synth.songs.song import FUNCTIONS
from beatmeter.datasets.synth.styles import STYLES
from beatmeter.datasets.synthetic_songs import SongPlan, annotation_of, synthesise_songs
from beatmeter.errors import ConfigError, DataError
from beatmeter.settings import DataConfig

CLEAN = SynthOptions(room=0, noise=0, equaliser=0, compressor=0, overdrive=0, codec=0)


def digest(seed: int) -> str:
    song = render_song(seed, sample_rate=8000)
    told = repr((song.sections, song.drops.tolist(), song.beats.tolist()))
    return hashlib.sha256(song.audio.tobytes() + told.encode()).hexdigest()


@pytest.fixture(scope="module")
def songs() -> list[Song]:
    """Two of every form."""
    forms = [form.name for form in SONG_FORMS]
    return [
        render_song(seed, form=forms[seed % len(forms)], sample_rate=8000) for seed in range(2 * len(forms))
    ]


def test_same_bytes_in_another_process() -> None:
    here = [digest(seed) for seed in (3,)]
    code = "import sys; sys.path.insert(0, 'tests/datasets'); from test_songs import digest; print(digest(3))"
    there = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert here == there


def test_every_song_keeps_its_contract(songs: list[Song]) -> None:
    for song in songs:
        seconds = len(song.audio) / song.sample_rate
        assert SECONDS[0] * 0.9 <= seconds <= SECONDS[1] * 1.1
        assert song.beats[-1] < seconds
        assert set(song.downbeats) == set(song.beats[song.beat_numbers == 1])
        starts = [section.start for section in song.sections]
        assert np.abs(np.subtract.outer(starts, song.downbeats)).min(axis=1).max() < 1e-9
        for section in song.sections:
            inside = song.audio[int(section.start * song.sample_rate) : int(section.end * song.sample_rate)]
            assert np.sqrt(np.mean(inside**2)) > 1e-5, f"seed {song.seed}: {section} is silent"
        assert (song.form == "dance") == (len(song.drops) > 0)
        for start, end in song.buildups:
            assert (start, end, "build-up") in {(s.start, s.end, s.function) for s in song.sections}
        drops = {s.start for s in song.sections if s.function == "drop"}
        assert set(song.drops.tolist()) <= drops
    named = {s.function for song in songs if song.form == "pop" for s in song.sections}
    assert {"verse", "chorus"} <= named <= set(FUNCTIONS)
    assert {s.function for song in songs if song.form == "rondo" for s in song.sections} == {""}


def test_equal_letters_are_the_same_material() -> None:
    """The chroma of two sections with a letter is more alike than that of two without, in every one of some
    songs."""
    from beatmeter.audio.barwise import frame_features
    from beatmeter.tasks.structure.similarity import bar_features, similarities

    better = []
    for seed in range(3):
        song = render_song(seed, form="pop", options=CLEAN)
        edges = np.append(song.downbeats, song.sections[-1].end)
        chroma = similarities(bar_features(frame_features([song.audio]), edges))["chroma"][:, :]
        at = np.searchsorted(song.downbeats, [s.start - 1e-3 for s in song.sections])
        pairs = [(a, b) for a in range(len(at)) for b in range(a)]
        values: dict[bool, list[float]] = {True: [], False: []}
        for a, b in pairs:
            bars = min(4, song_bars(song, a), song_bars(song, b))
            mean = float(np.mean([chroma[at[a] + k, at[b] + k] for k in range(bars)]))
            values[song.sections[a].letter == song.sections[b].letter].append(mean)
        better.append(np.mean(values[True]) > np.mean(values[False]) + 0.1)
    assert all(better)


def song_bars(song: Song, section: int) -> int:
    part = song.sections[section]
    return int(((song.downbeats >= part.start - 1e-6) & (song.downbeats < part.end - 1e-6)).sum())


def test_lengths_are_those_of_music() -> None:
    """Harmonix: 41 % of sections have 8 bars (43 % of dance tracks), 74 % a multiple of 4 (80 %), 9.6
    boundaries a song."""
    for dance, fours in ((False, (0.68, 0.82)), (True, (0.72, 0.88))):
        lengths: Counter[int] = Counter()
        counts = []
        for seed in range(200):
            form = draw_song_form(stream(seed, "song form"))
            if form.dance == dance:
                plan = draw_plan(stream(seed, "plan"), form)
                counts.append(len(plan.sections))
                lengths.update(section.bars for section in plan.sections)
        total = sum(lengths.values())
        assert fours[0] < sum(n for bars, n in lengths.items() if bars % 4 == 0) / total < fours[1]
        assert 0.28 < lengths[8] / total < 0.48
        assert 7.5 < np.mean(counts) < 11.5


def test_a_drop_is_loud_and_full_where_a_build_up_led() -> None:
    """Bass comes back, or the level rises, at most drops of dance tracks."""
    rises = []
    for seed in range(12):
        song = render_song(seed, form="dance", sample_rate=8000, options=CLEAN)
        for drop in song.drops:
            at = int(drop * song.sample_rate)
            half = int(2.0 * song.sample_rate)
            spectra = [
                np.abs(np.fft.rfft(part)) for part in (song.audio[at - half : at], song.audio[at : at + half])
            ]
            low = slice(int(30 * 2.0), int(150 * 2.0))
            rises.append(np.sum(spectra[1][low] ** 2) > 1.5 * np.sum(spectra[0][low] ** 2))
    assert np.mean(rises) > 0.75


def test_rows_of_the_table_name_what_there_is() -> None:
    styles = {style.name for style in STYLES}
    for form in SONG_FORMS:
        assert {name for name, _ in form.styles} <= styles
        plan = draw_plan(stream(1, "plan"), form)
        assert SECONDS[0] <= plan.bars * plan.meter.pulses * plan.pulse <= SECONDS[1]


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(ConfigError, match="no form 'fugue'"):
        render_song(1, form="fugue")
    with pytest.raises(ConfigError, match="need 8000 <= sample_rate"):
        render_song(1, sample_rate=100)
    with pytest.raises(ConfigError, match="no song of the form pop lasts"):
        render_song(1, form="pop", seconds=(10, 11))


def test_a_set_of_songs(tmp_path: Path) -> None:
    out = tmp_path / "songs"
    plan = SongPlan(seed=2, sample_rate=8000)
    made = synthesise_songs(out, 2, plan)
    assert (made.made, made.kept) == (2, 0)
    (out / "lab" / "000001.lab").unlink()
    again = synthesise_songs(out, 3, plan)
    assert (again.made, again.kept) == (2, 1)
    dataset = open_dataset(out, DataConfig(), (), labelled=False)
    assert [t.split for t in dataset.tracks] == ["train", "train", "val"]
    for index, track in enumerate(dataset.tracks):
        song = render_song((2 << 32) + index, sample_rate=8000)
        audio, rate = soundfile.read(track.path, dtype="float32")
        assert rate == 8000
        assert np.abs(audio - song.audio).max() <= 1 / 32768 + 1e-7
        known = find_annotation(track)
        assert known is not None
        truth = annotation_of(song)
        assert known.grid is not None
        assert known.grid.times == pytest.approx(song.beats, abs=1e-6)
        assert known.grid.places.tolist() == song.beat_numbers.tolist()
        assert known.sections is not None
        assert known.sections.functions == tuple(s.function for s in song.sections)
        assert truth.sections is not None
        assert known.sections.labels == truth.sections.labels
        lab = read_annotation(out / "lab" / f"{index:06d}.lab").sections
        assert lab is not None
        assert lab.boundaries == pytest.approx(known.sections.boundaries, abs=1e-6)
        assert known.events is not None
        assert known.events.of("drop") == pytest.approx(song.drops, abs=1e-6)
    with pytest.raises(DataError, match="other settings: seed 2, not 3"):
        synthesise_songs(out, 2, SongPlan(seed=3, sample_rate=8000))


@pytest.mark.parametrize(
    ("form", "slowest", "fastest", "pulses"),
    [
        ("ballad", 53, 109, {2, 3, 4}),
        ("eighths", 61, 172, {2, 3}),
        ("sixteenths", 51, 119, {4}),
        ("slow", 53, 87, {2, 3, 4}),
        ("fast", 107, 186, {2, 3, 4}),
    ],
)
def test_some_forms_are_made_by_name_alone(
    songs: list[Song], form: str, slowest: float, fastest: float, pulses: set[int]
) -> None:
    found = [song for song in songs if song.form == form]
    assert found
    assert all(slowest < song.tempo < fastest for song in found)
    assert all(set(song.grouping) <= pulses for song in found), "pulses of a beat"
    assert form not in {draw_song_form(stream(seed, "song form")).name for seed in range(300)}


def test_slow_and_fast_songs_have_the_same_players_and_no_drums() -> None:
    slow, fast = form_named("slow"), form_named("fast")
    assert slow.styles == fast.styles
    players = {style.name: style.parts for style in STYLES}
    assert not {part.role for name, _ in slow.styles for part in players[name]} & PERCUSSION


def test_a_set_of_one_form_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no form 'fugue'"):
        synthesise_songs(tmp_path / "set", 1, SongPlan(form="fugue"))
    assert not (tmp_path / "set").exists()
    plan = SongPlan(sample_rate=8000, excerpt=10.0, form="ballad")
    rows = synthesise_songs(tmp_path / "set", 1, plan).manifest.read_text().splitlines()
    assert [row.split(",")[6] for row in rows] == ["form", "ballad"]
    with pytest.raises(DataError, match="form"):
        synthesise_songs(tmp_path / "set", 1, SongPlan(sample_rate=8000, excerpt=10.0))


def test_a_set_of_excerpts_holds_part_of_each_song_with_its_own_times(tmp_path: Path) -> None:
    plan = SongPlan(seed=2, sample_rate=8000, excerpt=40.0)
    synthesise_songs(tmp_path / "parts", 1, plan)
    (track,) = open_dataset(tmp_path / "parts", DataConfig(), (), labelled=False).tracks
    song = render_song(2 << 32, sample_rate=8000)
    audio, rate = soundfile.read(track.path, dtype="float32")
    assert len(audio) == 40 * rate
    whole = song.audio[: len(song.audio) - len(audio)]
    begin = next(
        at for at in np.flatnonzero(np.abs(whole - audio[0]) < 1e-4)
        if np.abs(song.audio[at : at + len(audio)] - audio).max() < 1e-4
    ) / rate  # fmt: skip
    known = find_annotation(track)
    assert known is not None
    assert known.duration == pytest.approx(40.0)
    inside = (song.beats >= begin) & (song.beats < begin + 40)
    assert known.grid is not None
    assert known.grid.times == pytest.approx(song.beats[inside] - begin, abs=1e-5)
    assert known.grid.places.tolist() == song.beat_numbers[inside].tolist()
    assert known.sections is not None
    inner = [s.start - begin for s in song.sections if begin + 0.1 < s.start < begin + 39.9]
    assert known.sections.boundaries[1:-1] == pytest.approx(inner, abs=1e-5)
    assert known.sections.ends.max() <= 40.0 + 1e-6
    with pytest.raises(DataError, match="excerpt"):
        synthesise_songs(tmp_path / "parts", 1, SongPlan(seed=2, sample_rate=8000))


def test_events_of_an_excerpt_are_those_that_it_holds(songs: list[Song]) -> None:
    song = next(s for s in songs if len(s.drops) and len(s.buildups))
    start, end = song.buildups[0]
    middle = (start + end) / 2
    events = annotation_of(song, within=(middle, end + 1)).events
    assert events is not None
    assert "build-up" in events.kinds
    assert events.times[0] == 0.0, "a build-up that has begun before is heard from the start"
    assert events.lengths[events.kinds.index("build-up")] == pytest.approx(end - middle, abs=1e-5)
    late = (float(song.drops[-1]) + 0.5, len(song.audio) / song.sample_rate)
    after = annotation_of(song, within=late).events
    assert after is not None
    assert "drop" not in after.kinds
