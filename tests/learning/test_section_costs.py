"""Costs of sections: songs are read on true and on wrong bars, a network learns from them, and what is
shipped helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from beatmeter.audio.barwise import frame_features
from beatmeter.datasets.synth.songs import Song, render_song
from beatmeter.errors import RunError
from beatmeter.evaluation.metrics.events import moment_f
from beatmeter.evaluation.metrics.sections import boundary_f, intervals_of
from beatmeter.learning.sections import Reading, SongSeed, changed_grid, readings_of, train_costs
from beatmeter.tasks.structure.costs import (
    BarNetwork,
    load_network,
    read_evidence,
    save_network,
    shipped_network,
)
from beatmeter.tasks.structure.descriptors import descriptors
from beatmeter.tasks.structure.sections import find_drops, find_sections, hear_bars
from beatmeter.tasks.structure.similarity import bar_features

HELD_BACK = range(9000, 9004)  # seeds that no model was trained on


@pytest.fixture(scope="module")
def song() -> Song:
    return render_song(9000, form="pop")


def planted(count: int, seed: int) -> list[list[Reading]]:
    """Songs in which one descriptor tells boundaries, another drops, another the function, among noise."""
    rng = np.random.default_rng(seed)
    songs = []
    for _ in range(count):
        n = int(rng.integers(30, 60))
        boundary = (rng.random(n) < 0.15).astype(np.float32)
        function = rng.integers(0, 3, n)
        rows = rng.normal(0, 1, (n, 6)).astype(np.float32)
        drop = boundary * (rng.random(n) < 0.4).astype(np.float32)
        rows[:, 2] += 4 * boundary
        rows[:, 1] += 6 * drop
        rows[:, 4] += 3 * function
        songs.append([Reading(rows, boundary, drop, np.where(rng.random(n) < 0.2, -1, function))])
    return songs


def test_a_song_is_read_on_its_own_bars_first() -> None:
    readings = readings_of(SongSeed(9001))
    song = render_song(9001)
    first = readings[0]
    assert first.boundary.sum() == len(song.sections)
    assert abs(len(first.rows) - len(song.downbeats)) <= 3
    for reading in readings:
        assert len(reading.rows) == len(reading.boundary) == len(reading.function)
        assert np.isfinite(reading.rows).all()


def test_wrong_bars_are_wrong_as_they_say(song: Song) -> None:
    rng = np.random.default_rng(0)
    true = song.downbeats
    assert len(changed_grid(song, "double", rng)) in (len(true) // 2, -(-len(true) // 2))
    assert len(changed_grid(song, "half", rng)) == 2 * len(true) - 1
    shifted = changed_grid(song, "shifted", rng)
    assert not set(shifted) & set(true)
    assert set(shifted) <= set(song.beats)


def test_a_network_learns_what_is_planted_and_padding_changes_nothing() -> None:
    network = train_costs(planted(40, 0), planted(8, 1), epochs=12)
    reading = planted(1, 2)[0][0]
    evidence = read_evidence(network, reading.rows)
    assert ((evidence.boundary > 0) == (reading.boundary > 0)).mean() > 0.9
    assert ((evidence.drop > 0) == (reading.drop > 0)).mean() > 0.9
    padded = torch.zeros(1, len(reading.rows) + 20, 6)
    padded[0, : len(reading.rows)] = torch.from_numpy(reading.rows)
    mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
    mask[0, : len(reading.rows)] = True
    with torch.inference_mode():
        outputs = network(padded, mask)[0, : len(reading.rows)].numpy()
    assert outputs[:, 0] == pytest.approx(evidence.boundary, abs=1e-4)
    assert outputs[:, 1] == pytest.approx(evidence.drop, abs=1e-4)


def test_training_again_gives_the_same_network() -> None:
    first, second = (train_costs(planted(8, 0), planted(4, 1), epochs=2) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_files_are_read_back_or_refused(tmp_path: Path) -> None:
    network = BarNetwork(5).eval()
    file = tmp_path / "m.safetensors"
    file.write_bytes(save(save_network(network)))
    rows = np.random.default_rng(0).normal(0, 1, (20, 5)).astype(np.float32)
    again = read_evidence(load_network(file), rows).boundary
    assert again == pytest.approx(read_evidence(network, rows).boundary, abs=0.02)
    (tmp_path / "text.safetensors").write_text("no tensors")
    broken = save_network(network)
    broken["first.bias"][0] = torch.nan
    (tmp_path / "nan.safetensors").write_bytes(save(broken))
    fewer = save_network(network)
    del fewer["last.bias"]
    (tmp_path / "fewer.safetensors").write_bytes(save(fewer))
    for name, message in (("text", "holds no costs"), ("fewer", "holds no costs"), ("nan", "not finite")):
        with pytest.raises(RunError, match=message):
            load_network(tmp_path / f"{name}.safetensors")
    with pytest.raises(RunError, match="holds no costs"):
        load_network(tmp_path / "absent.safetensors")


def test_what_is_shipped_knows_these_descriptors_and_helps(song: Song) -> None:
    """On songs that it was not trained on, against self-similarity alone."""
    network = shipped_network()
    assert network is not None
    frames = frame_features([song.audio])
    edges = np.append(song.downbeats, song.sections[-1].end)
    assert descriptors(bar_features(frames, edges)).shape == (len(song.downbeats), len(network.mean))
    gains = []
    for seed in HELD_BACK:
        here = song if seed == 9000 else render_song(seed)
        frames = frame_features([here.audio])
        truth = intervals_of(np.array([here.sections[0].start, *(s.end for s in here.sections)]))
        scores = []
        for costs in (network, None):
            marks = find_sections(hear_bars(frames, here.downbeats, costs))
            found = np.stack([marks.starts, marks.ends], axis=1)
            scores.append(boundary_f(truth, found, 0.5, trim=True))
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0.0


def test_what_is_shipped_hears_drops_where_there_are_any(song: Song) -> None:
    """In dance tracks that it never saw most drops and few false ones, in a song without any none."""
    scores = []
    for seed in (9002, 9003):
        track = render_song(seed, form="dance", seconds=(60, 140))
        found = find_drops(hear_bars(frame_features([track.audio]), track.downbeats))
        scores.append(moment_f(track.drops, found.starts, 60 / track.tempo))
    assert np.mean(scores) > 0.6, scores
    assert not len(find_drops(hear_bars(frame_features([song.audio]), song.downbeats)))
