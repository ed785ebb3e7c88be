"""The extraction service: the same numbers as the plain loop, nothing lost, every file accounted for."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import objectserver
import pytest
import soundfile
import torch
from hubfolders import write_hub_folder
from meterfolders import build
from waiting import PATIENCE

from beatmeter.audio.ahead import decode_or_count
from beatmeter.audio.chunking import Layout
from beatmeter.audio.decode import load
from beatmeter.audio.identity import track_key
from beatmeter.datasets import open_dataset
from beatmeter.errors import BackboneError, StoreError
from beatmeter.features.backbones.base import Visit
from beatmeter.features.extraction import Extractor, plan
from beatmeter.features.pooling import Encoder
from beatmeter.features.poolings import Arrangement
from beatmeter.features.service import FeatureService, Filling
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import DataConfig, FeatureConfig, RunConfig, TaskConfig
from beatmeter.store import Store
from beatmeter.store.commit import TrackDraft
from beatmeter.store.verify import verify

CPU = torch.device("cpu")
CLASSES = TaskConfig().meters


def quiet(text: str) -> None:
    """Nobody reads it."""


def settings(cache: Path, **changes: object) -> FeatureConfig:
    return change(
        FeatureConfig(
            cache=str(cache), poolings=("stats", "lag", "frames"), statistics=("mean", "max", "std"), window=2
        ),
        changes,
    )


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 1.5 to 33 s, so that batches mix tracks, windows and short chunks."""
    folder = tmp_path_factory.mktemp("lengths")
    rng = np.random.default_rng(1)
    for i, seconds in enumerate([1.5, 5.0, 7.7, 12.1, 5.0, 33.0, 2.25, 20.5]):
        t = np.arange(round(seconds * 24_000)) / 24_000
        wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * t) * np.exp(
            -5 * (t % (0.25 + 0.05 * i))
        ) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{i}.wav", wave, 24_000)
    return folder


def require_plain(
    service: FeatureService, store: Store, tracks: Sequence[Track], keys: Mapping[str, str]
) -> None:
    """The store holds what one track after the other gives."""
    snapshot = store.snapshot()
    encoder = Encoder(service.backbone, service.spec)
    for track in tracks:
        wave = load(track.path)
        layout = Layout.of(len(wave), service.spec)
        chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts]))
        with torch.inference_mode():
            wanted = encoder(chunks, Arrangement.of(layout, 2))
        found = snapshot.read(keys[track.id])
        for name, values in wanted.items():
            assert np.allclose(found.pooled[name].values, values.numpy(), rtol=2e-3, atol=2e-3), (
                track.id,
                name,
            )


@pytest.mark.parametrize("backbone", ["spectral", "embedded"])
def test_batches_give_the_features_of_one_track_at_a_time(backbone: str, music: Path, tmp_path: Path) -> None:
    service = FeatureService(settings(tmp_path / "cache", backbone=backbone, dtype="float32"), CPU, jobs=2)
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    store, keys, failed = service.ensure(tracks, report=quiet)
    assert not failed
    require_plain(service, store, tracks, keys)


ARCHITECTURES = ["spectral", "embedded", "pre-LN folder", "post-LN folder"]


def small(backbone: str, folder: Path) -> FeatureService:
    """A service of any architecture that extraction knows."""
    if backbone.endswith("folder"):
        write_hub_folder(folder / "hub", pre_norm=backbone == "pre-LN folder", norm="old")
        backbone = str(folder / "hub")
    return FeatureService(settings(folder / "cache", backbone=backbone, dtype="float32"), CPU)


def keyed(tracks: Sequence[Track]) -> dict[str, str]:
    return {t.id: track_key(t.path) for t in tracks}


@pytest.mark.parametrize("chunks", [1, 3, 7, 64])
@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_batches_of_any_size_give_the_features_of_one_track_at_a_time(
    backbone: str, chunks: int, music: Path, tmp_path: Path
) -> None:
    service = small(backbone, tmp_path)
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    store, keys = service.store(), keyed(tracks)
    outcome = Extractor(Encoder(service.backbone, service.spec), store, CPU, batch_chunks=chunks).run(
        [(keys[t.id], t) for t in tracks]
    )
    assert outcome.failed == {}
    require_plain(service, store, tracks, keys)


class Scarce(Encoder):
    """Memory for so many chunks at a time; `sizes` are those of the batches that fitted."""

    def __init__(self, service: FeatureService, room: int) -> None:
        super().__init__(service.backbone, service.spec)
        self.room, self.sizes = room, list[int]()

    def forward(self, waves: torch.Tensor, arrangement: Arrangement) -> dict[str, torch.Tensor]:
        if len(waves) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(len(waves))
        return super().forward(waves, arrangement)


@pytest.mark.parametrize("backbone", ["spectral", "embedded"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    backbone: str, music: Path, tmp_path: Path
) -> None:
    service = small(backbone, tmp_path)
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    store, keys = service.store(), keyed(tracks)
    encoder = Scarce(service, 3)  # windows have two chunks, or three
    outcome = Extractor(encoder, store, CPU, batch_chunks=64).run([(keys[t.id], t) for t in tracks])
    assert outcome.failed == {}
    assert 0 < max(encoder.sizes) <= 3
    assert sum(encoder.sizes) == sum(
        len(Layout.of(len(load(t.path)), service.spec).starts) for t in tracks
    ), "no chunk twice"
    require_plain(service, store, tracks, keys)


def test_what_does_not_fit_alone_is_an_error_with_its_remedy(music: Path, tmp_path: Path) -> None:
    service = small("spectral", tmp_path)
    tracks = [
        t for t in open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks if t.id == "2.wav"
    ]  # one window
    keys = keyed(tracks)
    with pytest.raises(
        BackboneError,
        match=(
            r"2 chunks of .*2\.wav do not fit into the memory of cpu\. .*features\.window.* a machine with "
            r"more memory"
        ),
    ):
        Extractor(Scarce(service, 1), service.store(), CPU).run([(keys[t.id], t) for t in tracks])


def test_an_encoder_stopped_early_gives_the_same_layers(music: Path, tmp_path: Path) -> None:
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks[:3]
    whole = FeatureService(settings(tmp_path / "cache", backbone="embedded"), CPU)
    part = FeatureService(settings(tmp_path / "cache2", backbone="embedded", layers="1-2,4"), CPU)
    one, keys, _ = whole.ensure(tracks, report=quiet)
    two, _, _ = part.ensure(tracks, report=quiet)
    assert part.spec.last_layer == 4
    for key in keys.values():
        wanted = one.snapshot().read(key).pooled["stats"].values[:, [0, 1, 3]]
        assert np.array_equal(two.snapshot().read(key).pooled["stats"].values, wanted)


def test_a_store_that_holds_more_serves_less(music: Path, tmp_path: Path) -> None:
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks[:3]
    full = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    store, _, _ = full.ensure(tracks, report=quiet)
    lines: list[str] = []
    again, _, _ = full.ensure(tracks, full.spec.only(["lag"]), report=lines.append)
    assert again.path == store.path
    assert "0 to extract, 3 present" in lines[0]


def test_a_store_of_another_version_is_not_added_to(tmp_path: Path) -> None:
    """It holds what is wanted, and beside it a pooling that this version cannot make."""
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    wanted = service.spec
    newer = replace(wanted.poolings[0], name="later", kind="later")
    Store.for_spec(tmp_path / "cache", replace(wanted, poolings=(*wanted.poolings, newer)))
    assert service.store().spec == wanted


def test_copies_are_extracted_once_and_broken_files_are_listed_and_not_tried_again(
    music: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(music, folder)
    shutil.copy(folder / "2.wav", folder / "copy of 2.wav")
    (folder / "text.mp3").write_text("this is no music")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "silent.wav", np.zeros(48_000), 24_000)
    soundfile.write(folder / "short.wav", np.ones(100) * 0.1, 24_000)
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    tracks = open_dataset(folder, DataConfig(), CLASSES, labelled=False).tracks
    lines: list[str] = []
    store, keys, failed = service.ensure(tracks, report=lines.append)
    assert sorted(failed) == ["empty.wav", "short.wav", "silent.wav", "text.mp3"]
    assert any("1 copy of others" in line for line in lines), lines
    assert keys["2.wav"] == keys["copy of 2.wav"]
    lines.clear()
    _, _, again = service.ensure(tracks, report=lines.append)
    assert sorted(again) == sorted(failed)
    assert lines[0].endswith("0 to extract, 9 present, 4 failed")
    lines.clear()
    service.ensure(tracks, report=lines.append, retry_failed=True)
    assert "to extract" in lines[0]
    assert "0 to extract" not in lines[0]
    soundfile.write(folder / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(48_000), 24_000)
    _, _, mended = service.ensure(
        open_dataset(folder, DataConfig(), CLASSES, labelled=False).tracks, report=quiet
    )
    assert "short.wav" not in mended
    assert store.path == service.store().path


def test_long_files_are_streamed_and_give_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    rng = np.random.default_rng(2)
    soundfile.write(folder / "long.wav", 0.1 * rng.standard_normal(24_000 * 47 + 777), 24_000)
    tracks = open_dataset(folder, DataConfig(), CLASSES, labelled=False).tracks
    held = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    one, keys, _ = held.ensure(tracks, report=quiet)
    monkeypatch.setattr(decode_or_count, "__defaults__", (10.0,))
    streamed = FeatureService(settings(tmp_path / "cache2", backbone="spectral"), CPU)
    two, _, failed = streamed.ensure(tracks, report=quiet)
    assert not failed
    for name, rows in one.snapshot().read(keys["long.wav"]).pooled.items():
        assert np.array_equal(rows.values, two.snapshot().read(keys["long.wav"]).pooled[name].values), name


def test_an_interrupted_extraction_keeps_what_is_finished(music: Path, tmp_path: Path) -> None:
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    store = Store.for_spec(tmp_path / "cache", service.spec)
    seen = 0

    def stop(n: int) -> None:
        nonlocal seen
        seen += n
        if seen == 4:
            raise KeyboardInterrupt

    todo = [(track_key(t.path), t) for t in tracks]
    with pytest.raises(KeyboardInterrupt):
        Extractor(Encoder(service.backbone, service.spec), store, CPU).run(todo, stop)
    assert len(store.keys()) == 4
    _, _, failed = service.ensure(tracks, report=quiet)
    assert not failed
    assert len(store.keys()) == len(tracks)


KILLS = 10 if int(os.environ.get("BEATMETER_FULL", "0")) else 4
CHILD = """
import sys
from pathlib import Path
import torch
from beatmeter.features.extraction import committing
from beatmeter.datasets import open_dataset
from beatmeter.features.extraction.inference import Inference
from beatmeter.features.service import FeatureService, Filling
from beatmeter.settings import DataConfig, FeatureConfig, TaskConfig
from beatmeter.store import Store
committing.COMMIT_TRACKS = 2
def telling(kind, name):
    real = getattr(kind, name)
    def told(*arguments):
        print(name, flush=True)
        result = real(*arguments)
        print(name, flush=True)
        return result
    setattr(kind, name, told)
telling(Store, "commit")
telling(Inference, "__call__")
torch.set_num_threads(1)
music, cache = sys.argv[1:]
config = FeatureConfig(cache=cache, backbone="spectral", poolings=("stats", "lag"), window=2)
service = FeatureService(config, torch.device("cpu"))
tracks = open_dataset(Path(music), DataConfig(), TaskConfig().meters, labelled=False).tracks
service.spec
print("ready", flush=True)
service.ensure(tracks, report=lambda text: None)
"""


def test_killed_again_and_again_it_equals_an_undisturbed_run(clips: Path, tmp_path: Path) -> None:
    def extract(cache: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(clips), str(cache)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    whole = extract(tmp_path / "whole")
    steps = len(whole.communicate(timeout=PATIENCE)[0].splitlines())
    assert whole.returncode == 0
    rng = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = extract(tmp_path / "killed")
        for _ in range(rng.randrange(steps // 8)):  # it begins or ends a batch or a commit
            process.stdout.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= KILLS / 2
    last = extract(tmp_path / "killed")
    last.communicate(timeout=PATIENCE)
    assert last.returncode == 0
    one, two = (
        next(Store.open(p.parent) for p in cache.glob("*/commits"))
        for cache in (tmp_path / "whole", tmp_path / "killed")
    )
    assert verify(two.path, full=True).sound
    assert one.keys() == two.keys()
    assert len(one.keys()) == 48
    for key in list(one.keys()):
        for name, rows in one.snapshot().read(key).pooled.items():
            assert np.array_equal(rows.values, two.snapshot().read(key).pooled[name].values)


def test_every_row_of_a_broken_meter_folder_is_accounted_for_and_nothing_silent_is_trained_on(
    tmp_path: Path,
) -> None:
    folder = build(tmp_path / "meter")
    config = change(
        RunConfig(),
        {
            "data": {"path": str(folder.path)},
            "features": {"backbone": "spectral", "cache": str(tmp_path / "cache"), "window": 2},
            "head": {"poolings": ("lag",), "channels": 8},
            "training": {"epochs": 1},
        },
    )
    outcome = run(config, tmp_path / "run", CPU, report=quiet)
    import csv

    with (tmp_path / "run" / "excluded.csv").open() as file:
        excluded = {row["id"]: row for row in csv.DictReader(file)}
    with (tmp_path / "run" / "split.csv").open() as file:
        used = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert set(folder.kept) == set(used)
    assert set(folder.excluded) <= set(excluded)
    assert not set(used) & set(folder.excluded)
    assert all(row["reason"] for row in excluded.values())
    predicted = {name for e in outcome.evaluations.values() for name in e.predictions.ids}
    assert predicted <= set(folder.kept)


def test_values_that_cannot_be_stored_fail_their_track_and_no_other(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    plain = service.backbone.forward

    def overflowing(waves: torch.Tensor, visit: Visit, last: int | None = None) -> None:
        loud = waves.shape[1] < 40_000  # only the file of 1.5 s
        plain(waves, lambda k, states: visit(k, states * 1e6 if loud else states), last)

    monkeypatch.setattr(service.backbone, "forward", overflowing)
    store, keys, failed = service.ensure(tracks, report=quiet)
    assert list(failed) == ["0.wav"]
    assert "layer 1" in failed["0.wav"]
    assert len(store.keys()) == len(tracks) - 1
    assert keys["0.wav"] in store.failures()


def test_tracks_too_large_to_hold_are_written_as_they_are_computed(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    held, keys, _ = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU).ensure(
        tracks, report=quiet
    )
    sizes = sorted(
        held.layout.bytes_of(Layout.of(samples, held.spec)) for samples in held.snapshot().lengths()
    )
    monkeypatch.setattr("beatmeter.features.extraction.committing.COMMIT_BYTES", sizes[3])
    begin, begun = Store.draft, []
    monkeypatch.setattr(
        Store, "draft", lambda self, key, samples: begun.append(key) or begin(self, key, samples)
    )
    written, _, failed = FeatureService(settings(tmp_path / "cache2", backbone="spectral"), CPU).ensure(
        tracks, report=quiet
    )
    assert not failed
    assert 0 < len(begun) < len(tracks)
    assert verify(written.path, full=True).sound
    for key in keys.values():
        for name, rows in held.snapshot().read(key).pooled.items():
            assert np.array_equal(rows.values, written.snapshot().read(key).pooled[name].values), name


def test_a_disk_that_is_full_for_a_time_costs_a_track_too_large_to_hold_only_its_turn(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    store, told = service.store(), []
    monkeypatch.setattr("beatmeter.features.extraction.committing.COMMIT_BYTES", 1)
    append, calls = TrackDraft.append, iter(range(1000))

    def full(draft: TrackDraft, values: object) -> None:
        append(draft, values)  # type: ignore[arg-type]
        if next(calls) == 8:
            raise StoreError("No space left on device", "Make room.")

    def patient(error: StoreError) -> bool:
        told.append(str(error))
        return True

    with monkeypatch.context() as disk:
        disk.setattr(TrackDraft, "append", full)
        with pytest.raises(StoreError, match="No space"):
            service.fill(store, tracks, Filling(quiet))
        assert 0 < len(store.keys()) < len(tracks)
        calls = iter(range(6, 1000))
        filled = service.fill(store, tracks, Filling(quiet, patience=patient))
    assert len(told) == len(filled.failed) == 1
    assert "No space" in told[0]
    assert store.failures() == {}
    assert len(store.keys()) == len(tracks) - 1
    assert not service.fill(store, tracks, Filling(quiet)).failed
    assert verify(store.path, full=True).sound
    assert not list((store.path / "tmp").iterdir())


def test_a_deeper_store_is_filled_for_one_that_wants_less(music: Path, tmp_path: Path) -> None:
    tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
    deep, _, _ = FeatureService(settings(tmp_path / "cache", backbone="embedded"), CPU).ensure(
        tracks[:1], report=quiet
    )
    store, keys, failed = FeatureService(
        settings(tmp_path / "cache", backbone="embedded", layers="1-2"), CPU
    ).ensure(tracks[:2], report=quiet)
    assert (store.path, failed, len(store.keys())) == (deep.path, {}, 2)
    assert store.snapshot().read(keys[tracks[1].id]).pooled["stats"].values.shape[1] == deep.spec.n_layers


@pytest.mark.parametrize("long", [False, True])
def test_a_file_that_changes_after_its_key_was_computed_gets_no_features_under_that_key(
    music: Path, tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if long:
        monkeypatch.setattr(decode_or_count, "__defaults__", (1.0,))
    folder = tmp_path / "growing"
    shutil.copytree(music, folder)
    service = FeatureService(settings(tmp_path / "cache", backbone="spectral"), CPU)
    tracks = open_dataset(folder, DataConfig(), CLASSES, labelled=False).tracks
    store = service.store()
    planned = plan(tracks, store, None)
    shutil.copy(folder / "5.wav", folder / "3.wav")
    outcome = Extractor(Encoder(service.backbone, service.spec), store, CPU).run(
        planned.todo, stamps=planned.stamps
    )
    assert list(outcome.failed) == ["3.wav"]
    assert "changed while it was read" in outcome.failed["3.wav"]
    assert store.failures() == {}  # nothing is wrong with the bytes of that key
    assert planned.keys["3.wav"] not in store
    filled = service.fill(store, tracks, Filling(quiet))
    assert not filled.failed
    assert filled.keys["3.wav"] == filled.keys["5.wav"]


def test_a_cache_may_lie_in_an_object_store(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="object stores need obstore: pip install 'beatmeter[cloud]'")
    with objectserver.serving() as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        service = FeatureService(
            change(settings(Path(), backbone="spectral"), {"cache": "s3://music/caches"}), CPU
        )
        tracks = open_dataset(music, DataConfig(), CLASSES, labelled=False).tracks
        store, keys, failed = service.ensure(tracks, report=quiet)
        assert not failed
        assert store.where.startswith("s3://music/caches/")
        assert set(store.keys()) == set(keys.values())
        lines: list[str] = []
        service.ensure(tracks, report=lines.append)
        assert f"0 to extract, {len(tracks)} present" in lines[0]
