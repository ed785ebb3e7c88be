"""Shards: a split that every machine computes alike, and runs that fill one store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.cli import cli
from beatmeter.datasets import open_dataset
from beatmeter.errors import ConfigError
from beatmeter.features.extraction import Shard
from beatmeter.features.service import FeatureService
from beatmeter.schema import Track
from beatmeter.settings import DataConfig, FeatureConfig, TaskConfig
from beatmeter.store import Store, list_stores

SPECTRAL = ("--set", "features.backbone=spectral", "--set", "features.window=2", "--device", "cpu")


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 9))
def test_every_track_is_in_one_shard_and_stays_there_when_others_go(names: list[str], count: int) -> None:
    tracks = [Track(name, Path("x.wav")) for name in names]
    shards = [Shard(i, count).of(tracks) for i in range(1, count + 1)]
    assert sorted(t.id for shard in shards for t in shard) == sorted(names)
    assert [t for t in shards[0] if t in tracks[::2]] == list(Shard(1, count).of(tracks[::2]))


def test_the_split_is_even_and_the_same_for_ever() -> None:
    tracks = [Track(f"{i}.wav", Path("x.wav")) for i in range(10_000)]
    sizes = [len(Shard(i, 8).of(tracks)) for i in range(1, 9)]
    assert max(sizes) - min(sizes) < 0.15 * 1250
    assert [t.id for t in Shard(3, 4).of(tracks[:12])] == ["1.wav", "6.wav"]
    assert Shard(1, 1).of(tracks) == tuple(tracks)


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "0/2", "3/2", "1/0", "-1/2", "1.0/2", "a/b", "1/2/3", "1 2"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"2/8|numbered from 1"):
        Shard.parse(text)


def test_two_shards_are_one_whole_run(clips: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for path in sorted(clips.rglob("*.flac"))[:12]:
        shutil.copy(path, music)
    (music / "text.mp3").write_text("this is no music")
    for shard in ("1/2", "2/2"):
        done = CliRunner().invoke(
            cli, ["extract", str(music), *SPECTRAL, "--cache", str(tmp_path / "parts"), "--shard", shard]
        )
        assert f"shard {shard}" in done.output, done.output
    config = FeatureConfig(cache=str(tmp_path / "whole"), backbone="spectral", window=2)
    tracks = open_dataset(music, DataConfig(), TaskConfig().meters, labelled=False).tracks
    whole, _, failed = FeatureService(config, torch.device("cpu")).ensure(tracks, report=lambda text: None)
    (parts,) = list_stores(tmp_path / "parts")
    assert isinstance(parts, Store)
    assert parts.spec == whole.spec
    assert parts.keys() == whole.keys()
    assert parts.failures().keys() == whole.failures().keys()
    assert list(failed) == ["text.mp3"]
    assert len(whole.keys()) == 12
    for key in list(whole.keys()):
        for name, rows in whole.snapshot().read(key).pooled.items():
            assert np.array_equal(rows.values, parts.snapshot().read(key).pooled[name].values)


def test_the_command_refuses_a_wrong_shard(clips: Path) -> None:
    done = CliRunner().invoke(cli, ["extract", str(clips), *SPECTRAL, "--shard", "0/4"])
    assert isinstance(done.exception, ConfigError)
