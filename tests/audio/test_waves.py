"""Decoded waveforms on disk: what comes back, what is kept, what goes, and what a damaged file does."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hubfolders import write_hub_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.audio import ahead, waves
from beatmeter.audio.decode import load
from beatmeter.audio.identity import track_keys
from beatmeter.audio.waves import BLOCK, Waves, decode, encode
from beatmeter.datasets import open_dataset
from beatmeter.errors import AudioError
from beatmeter.learning.sources import Streamed, open_source, saved_bytes
from beatmeter.learning.sources import streamed as streaming
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")
RATE = 24_000


def kept(cache: Path) -> list[Path]:
    """The files of waves in a cache."""
    return sorted(cache.rglob("*.wave"))


def clear(cache: Path) -> None:
    """Remove all of them."""
    for path in kept(cache):
        path.unlink()


def there_and_back(wave: np.ndarray) -> np.ndarray:
    back = decode(np.frombuffer(encode(wave, RATE), np.uint8), RATE)
    assert back is not None
    assert back.dtype == np.float32
    return back


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5000), st.floats(-100, 10))
def test_no_sample_is_further_off_than_half_a_step_of_its_block(seed: int, n: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    wave = (rng.standard_normal(n) * 2.0**level).astype(np.float32)
    off = np.abs(there_and_back(wave).astype(np.float64) - wave)
    starts = np.arange(0, n, BLOCK)
    assert (np.maximum.reduceat(off, starts) <= np.maximum.reduceat(np.abs(wave), starts) / 2**15).all()


def test_sixteen_bit_samples_come_back_as_they_were() -> None:
    wave = (np.random.default_rng(0).integers(-32768, 32768, 5000) / 32768).astype(np.float32)
    wave[1000:3000] *= 0
    assert np.array_equal(there_and_back(wave), wave)


def test_a_flipped_bit_a_cut_file_and_another_rate_are_noticed() -> None:
    content = encode(np.random.default_rng(0).standard_normal(3000).astype(np.float32), RATE)
    for at in (3, 9, 13, 18, 26, 64, 70, len(content) - 1):
        broken = bytearray(content)
        broken[at] ^= 1
        assert decode(np.frombuffer(bytes(broken), np.uint8), RATE) is None, at
    assert decode(np.frombuffer(content[:-1], np.uint8), RATE) is None
    assert decode(np.frombuffer(content[:10], np.uint8), RATE) is None
    assert decode(np.frombuffer(content, np.uint8), 22_050) is None


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    found = {}
    for i in range(4):
        found[f"{i:02x}" * 32] = tmp_path / f"{i}.wav"
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal((30_000, 2)), 16_000)
    return found


def test_a_file_is_decoded_once(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Waves(tmp_path / "cache", RATE, "soxr-hq", 1 << 30)
    first = store.fill(files, 1)
    assert (first.decoded, first.kept, len(first.samples), len(first.failed)) == (4, 4, 4, 0)
    monkeypatch.setattr(waves, "decode_ahead", lambda paths, *rest: iter([1 / 0] if paths else []))
    again = store.fill(files, 1)
    assert (again.decoded, again.kept, again.samples) == (0, 4, first.samples)
    for key, path in files.items():
        wave = store.read(key)
        assert wave is not None
        assert np.abs(wave - load(path, RATE)).max() < 1e-5


def test_a_damaged_file_is_removed_and_decoded_again(files: dict[str, Path], tmp_path: Path) -> None:
    store = Waves(tmp_path / "cache", RATE, "soxr-hq", 1 << 30)
    store.fill(files, 1)
    key = next(iter(files))
    data = bytearray(store.path(key).read_bytes())
    data[-100] ^= 4
    store.path(key).write_bytes(data)
    assert store.read(key) is None
    assert store.samples(key) is None
    assert store.fill(files, 1).decoded == 1
    assert store.read(key) is not None


def test_there_is_room_for_so_much_and_what_was_not_used_for_longest_goes(
    files: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    size = Waves(cache, RATE, "soxr-hq", 1 << 30).fill(files, 1).bytes // 4
    keys = list(files)
    old = Waves(cache, RATE, "soxr-hq", 0)
    for age, key in enumerate(keys):
        os.utime(old.path(key), (time.time() - 1000 + age, time.time() - 1000 + age))
    for key in keys[:2]:  # the two oldest
        old.path(key).unlink()
    small = Waves(cache, RATE, "soxr-hq", 3 * size)
    filled = small.fill({keys[0]: files[keys[0]], keys[1]: files[keys[1]]}, 1)
    assert filled.kept == 2
    assert [small.samples(key) is not None for key in keys] == [True, True, False, True]
    filled = small.fill(files, 1)
    assert (filled.kept, len(filled.samples)) == (3, 4), "those of one call do not push each other out"
    assert sum(path.stat().st_size for path in kept(cache)) <= 3 * size
    assert Waves(tmp_path / "none", RATE, "soxr-hq", 0).fill(files, 1).kept == 0


def test_what_cannot_be_kept_pushes_nothing_out(files: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    size = Waves(cache, RATE, "soxr-hq", 1 << 30).fill(files, 1).bytes
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(4 * 30_000), 16_000)
    for limit in (0, size // 2):  # keep nothing; one file larger than all the room
        filled = Waves(cache, RATE, "soxr-hq", limit).fill({"ff" * 32: tmp_path / "long.wav"}, 1)
        assert (filled.decoded, filled.kept, filled.unwritable) == (1, 0, "")
        assert len(kept(cache)) == len(files)


def test_a_disk_that_cannot_be_written_costs_only_time(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(waves.atomic, "write_bytes", full)
    filled = Waves(tmp_path / "cache", RATE, "soxr-hq", 1 << 30).fill(files, 1)
    assert (filled.decoded, filled.kept, len(filled.samples)) == (4, 0, 4)
    assert filled.unwritable == "No space left on device"


def test_a_folder_that_nothing_can_be_removed_from_costs_only_time(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, keys = tmp_path / "cache", list(files)
    size = Waves(cache, RATE, "soxr-hq", 1 << 30).fill({key: files[key] for key in keys[:2]}, 1).bytes

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    store = Waves(cache, RATE, "soxr-hq", size)
    with monkeypatch.context() as folder:
        folder.setattr(Path, "unlink", refuse)
        filled = store.fill(
            {key: files[key] for key in keys[2:]}, 1
        )  # there is no room without removing the others
        assert (filled.decoded, filled.kept, len(filled.samples), filled.unwritable) == (
            2,
            0,
            2,
            "Permission denied",
        )
        store.path(keys[0]).write_bytes(bytes(100))
        assert store.read(keys[0]) is None
    assert len(kept(cache)) == 2


def test_a_folder_that_is_cleared_meanwhile_holds_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Waves(tmp_path / "cache", RATE, "soxr-hq", 1 << 30)
    store.fill(files, 1)
    monkeypatch.setattr(Path, "exists", lambda path: True)  # as it was a moment ago
    filled = store.fill(files, 1, lambda n: clear(tmp_path / "cache"))
    assert (len(filled.samples), filled.kept, filled.bytes) == (4, 0, 0)


@pytest.fixture
def streamed(config: RunConfig, tmp_path: Path) -> RunConfig:
    write_hub_folder(tmp_path / "hub")
    return change(config, {"regime": "streamed", "features": {"backbone": str(tmp_path / "hub")}})


def test_streamed_batches_are_the_same_with_and_without_kept_waveforms(
    streamed: RunConfig, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = list(open_dataset(clips, streamed.data, streamed.task.meters).tracks)[:5]
    said: list[str] = []
    kept, anew = (
        open_source(change(streamed, {"training": {"waves": gb}}), CPU, said.append) for gb in (1.0, 0.0)
    )
    assert kept.prepare(tracks, said.append) == anew.prepare(tracks, said.append) == {}
    said = [line for line in said if line.startswith("waveforms:")]
    assert "5 decoded, 5 kept" in said[-2]
    parts = [np.array([2, 0]), np.array([4, 1, 3])]
    for seed in (None, (3, 1)):
        for a, b in zip(kept.batches(tracks, parts, seed), anew.batches(tracks, parts, seed), strict=True):
            assert all(
                x.crop == y.crop and len(x.wave) == len(y.wave) and np.abs(x.wave - y.wave).max() < 1e-4
                for x, y in zip(a.inputs, b.inputs, strict=True)
            )

    def never(paths: list[Path], rate: int, jobs: int) -> object:
        assert not paths, "an epoch decodes nothing that is kept"
        return iter([])

    monkeypatch.setattr(streaming, "decode_ahead", never)
    list(kept.batches(tracks, parts, (3, 2)))
    clear(Path(streamed.features.cache))
    with pytest.raises(AssertionError, match="decodes nothing"):
        list(kept.batches(tracks, parts))


def test_training_says_when_waveforms_cannot_be_kept(
    streamed: RunConfig, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(waves.atomic, "write_bytes", refuse)
    tracks = list(open_dataset(clips, streamed.data, streamed.task.meters).tracks)[:2]
    said: list[str] = []
    source = open_source(streamed, CPU, said.append)
    assert source.prepare(tracks, said.append) == {}
    assert said[-1].endswith(
        "2 are decoded in every epoch (the folder cannot be written: Read-only file system)"
    )
    assert len(next(source.batches(tracks, [np.arange(2)])).inputs) == 2


def test_a_track_that_cannot_be_decoded_is_named_before_training(
    streamed: RunConfig, clips: Path, tmp_path: Path
) -> None:
    tracks = list(open_dataset(clips, streamed.data, streamed.task.meters).tracks)[:2]
    (tmp_path / "broken.wav").write_text("no audio")
    bad = [
        *tracks,
        type(tracks[0])("bad", tmp_path / "broken.wav", {"3": 1.0}),
        type(tracks[0])("gone", tmp_path / "gone.wav", {"3": 1.0}),
    ]
    source = open_source(streamed, CPU, lambda text: None)
    failed = source.prepare(bad, lambda text: None)
    assert set(failed) == {"bad", "gone"}
    assert "broken.wav" in failed["bad"]


def test_a_file_that_changes_after_its_key_was_computed_is_not_kept_under_that_key(
    streamed: RunConfig, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = list(files.values())[:2]
    tracks = [Track("one", one, {"3": 1.0}), Track("two", two, {"3": 1.0})]
    hashed: list[str | AudioError] = []

    def keys_then_change(*args: object) -> list[str | AudioError]:
        hashed[:] = track_keys(*args)  # type: ignore[arg-type]
        shutil.copy(files[list(files)[3]], two)
        return hashed

    source = open_source(streamed, CPU, lambda text: None)
    assert isinstance(source, Streamed)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(streaming, "track_keys", keys_then_change)
        failed = source.prepare(tracks, lambda text: None)
    assert list(failed) == ["two"]
    assert "changed while it was read. Run again" in failed["two"]
    assert [source.waves.samples(str(key)) is not None for key in hashed] == [True, False]
    assert source.prepare(tracks, lambda text: None) == {}, "now it has another key"


def test_a_track_too_long_to_be_held_is_left_out_with_its_reason(
    streamed: RunConfig, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is kept from a time when it was not too long; one that is not is never decoded."""
    table = open_dataset(clips, streamed.data, streamed.task.meters).tracks
    soundfile.write(
        tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(11 * 16_000), 16_000
    )
    tracks = [*table[:2], Track("long", tmp_path / "long.wav", {"3": 1.0})]
    short = change(streamed, {"training": {"longest": 10.0}})
    with monkeypatch.context() as first:
        first.setattr(
            ahead, "load", lambda path, rate: 1 / 0 if path.name == "long.wav" else load(path, rate)
        )
        failed = open_source(short, CPU, lambda text: None).prepare(tracks, lambda text: None)
    assert list(failed) == ["long"]
    assert (
        "long.wav lasts 11 s, and tracks of at most 10 s are held whole (training.longest). Cut it"
        in failed["long"]
    )
    assert "--frozen" in failed["long"]
    assert open_source(streamed, CPU, lambda text: None).prepare(tracks, lambda text: None) == {}
    assert open_source(short, CPU, lambda text: None).prepare(tracks, lambda text: None) == failed


def test_layers_are_checkpointed_when_their_activations_do_not_fit(
    streamed: RunConfig, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = list(open_dataset(clips, streamed.data, streamed.task.meters).tracks)[:2]
    for free, expected in ((1 << 40, False), (1 << 20, True)):
        monkeypatch.setattr(streaming, "free_bytes", lambda device, free=free: free)
        said: list[str] = []
        source = open_source(streamed, CPU, said.append)
        assert isinstance(source, Streamed)
        source.prepare(tracks, said.append)
        state = torch.get_rng_state()
        batch = next(source.batches(tracks, [np.arange(2)], (0, 1)))
        assert torch.equal(state, torch.get_rng_state()), "measuring draws nothing"
        assert source.backbone.checkpointing is expected
        assert any("checkpointing layers instead" in line for line in said) is expected
        kept = saved_bytes(source.encoder.train(), batch.inputs)
        assert kept > 0
        if not expected:
            whole = kept
    assert kept < 0.6 * whole, "checkpointing keeps less"
