"""Stored features in memory and out of it: the same numbers, aggregated once, standardised once."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import objectserver
import pytest
import torch

from beatmeter.audio.chunking import Layout, rows
from beatmeter.datasets import open_dataset
from beatmeter.errors import ConfigError, RunError
from beatmeter.features.crops import VIEWS, crop_of
from beatmeter.features.poolings import pooling_of
from beatmeter.learning import sources as features
from beatmeter.learning.sources import Cuts, Frozen, Table, in_order, one_ahead, open_source
from beatmeter.learning.standardiser import Moments, Standardiser, standardiser_of
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import PoolingSpec, Track
from beatmeter.settings import RunConfig
from beatmeter.store import Snapshot

CPU = torch.device("cpu")


@pytest.fixture
def tracks(config: RunConfig, clips: Path) -> list[Track]:
    return [t for t in open_dataset(clips, config.data, config.task.meters).tracks if t.split == "train"][:12]


def opened(config: RunConfig, tracks: list[Track], **training: object) -> tuple[Frozen, list[str]]:
    said: list[str] = []
    source = cast(Frozen, open_source(change(config, {"training": training}), CPU, said.append))
    source.prepare(tracks, said.append)
    return source, said


@pytest.mark.parametrize("seed", [None, (1, 2)])
def test_features_too_large_for_memory_are_read_for_every_batch_and_are_the_same(
    config: RunConfig, tracks: list[Track], seed: tuple[int, int] | None
) -> None:
    kept, _ = opened(config, tracks)
    read, said = opened(config, tracks, memory=1e-12)
    parts = [np.array([3, 0, 7]), np.array([11]), np.arange(12)]
    before: dict[str, torch.Tensor] = {}
    for standardised in (False, True):
        one, two = list(kept.batches(tracks, parts, seed)), list(read.batches(tracks, parts, seed))
        for a, b in zip(one, two, strict=True):
            assert np.array_equal(a.index, b.index)
            assert all(torch.allclose(a.inputs[name], b.inputs[name], atol=1e-6) for name in ("stats", "lag"))
        if standardised:
            raw = [before[name] - 0.25 for name in ("stats", "lag")]
            assert all(
                torch.allclose(a.inputs[name], 3 * x, atol=1e-5)
                for name, x in zip(("stats", "lag"), raw, strict=True)
            )
        before = a.inputs
        means = {name: torch.full_like(x[0], 0.25) for name, x in one[0].inputs.items()}
        standardiser = Standardiser(means, {name: torch.full_like(x, 3.0) for name, x in means.items()})
        kept.standardise(standardiser)
        read.standardise(standardiser)
    assert any("GB would be needed" in line for line in said)


def test_what_happens_to_a_track_does_not_depend_on_its_neighbours(
    config: RunConfig, tracks: list[Track]
) -> None:
    source, _ = opened(change(config, {"augment": {"crop": 1.0}}), tracks)
    whole = next(source.batches(tracks, [np.arange(12)], (5, 1))).inputs["stats"]
    apart = [batch.inputs["stats"] for batch in source.batches(tracks, in_order(12, 5), (5, 1))]
    assert torch.equal(whole, torch.cat(apart))
    other = next(source.batches(tracks, [np.arange(12)], (5, 2))).inputs["stats"]
    assert not torch.equal(whole, other)


def test_views_are_runs_of_rows_aggregated_like_the_whole(config: RunConfig, tracks: list[Track]) -> None:
    source, _ = opened(config, tracks)
    track, pooling = tracks[4], source.spec["stats"]
    snapshot = cast(Snapshot, source.snapshot)
    key = source.keys[track.id]
    values = torch.from_numpy(snapshot.load([key], "stats").values).float()
    samples = snapshot.samples(key)
    times, frames = rows(Layout.of(samples, source.spec), pooling)
    counts = torch.from_numpy(frames)
    table = cast(Table, source._table(tracks, 1 + VIEWS))
    assert torch.allclose(
        table.values["stats"][table.at["stats"][4, 0]], pooling_of(pooling).aggregate(values, counts)
    )
    for view in range(1, 1 + VIEWS):
        a, b = pooling_of(pooling).crop(times, crop_of(key, view, samples / source.spec.chunk.sample_rate))
        assert torch.allclose(
            table.values["stats"][table.at["stats"][4, view]],
            pooling_of(pooling).aggregate(values[a:b], counts[a:b]),
        )


def test_views_that_leave_all_rows_are_kept_once(config: RunConfig, tracks: list[Track]) -> None:
    """Clips of two chunks: one lag window, so no view of lag is made but the whole; of stats three may
    differ."""
    source, said = opened(config, tracks)
    table = cast(Table, source._table(tracks, 1 + VIEWS))
    assert len(table.values["lag"]) == len(tracks)
    assert (table.at["lag"] == np.arange(len(tracks))[:, None]).all()
    assert len(tracks) < len(table.values["stats"]) <= 3 * len(tracks)
    assert "augment.crop: 12 of 12 tracks have one lag window of 10 s and are not cropped in it" in said
    _, said = opened(change(config, {"augment": {"crop": 0.0}}), tracks)
    assert not [line for line in said if "augment.crop" in line]


def test_many_tracks_are_aggregated_like_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    for kind, axes, shape, parameters in (
        ("stats", ("pool", "dim"), (3, 4), {"statistics": ["mean", "max", "std"]}),
        ("stats", ("pool", "dim"), (1, 4), {"statistics": ["std"]}),
        ("lag", ("channel", "lag"), (3, 8), {"window": 6}),
    ):
        pooling = PoolingSpec(kind, kind, "chunk", (1, 2), axes, shape, parameters)
        values = torch.rand(5, 6, 2, *shape, generator=generator)
        frames = torch.randint(1, 400, (5, 6), generator=generator)
        together = pooling_of(pooling).aggregate(values, frames)
        assert together.shape == (5, 2, *shape)
        for i in range(5):
            assert torch.allclose(together[i], pooling_of(pooling).aggregate(values[i], frames[i]), atol=1e-6)


def test_the_table_is_built_once(
    config: RunConfig, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = Frozen._build

    def counted(self: Frozen, keys: list[str], cuts: dict[str, Cuts], home: torch.device) -> Table:
        built.append(cuts["stats"].at.shape[1])
        return build(self, keys, cuts, home)

    monkeypatch.setattr(features.Frozen, "_build", counted)
    source, _ = opened(config, tracks)
    for seed in (None, (1, 1), (1, 2), None):  # standardisation first, epochs then
        list(source.batches(tracks, in_order(12, 4), seed))
    assert built == [1 + VIEWS]


def test_another_train_split_is_not_standardised_by_the_first(config: RunConfig, tracks: list[Track]) -> None:
    source, _ = opened(config, tracks)
    zero, one = {"stats": torch.zeros(1)}, {"stats": torch.ones(1)}
    source.standardise(Standardiser(zero, one))
    source.standardise(Standardiser({"stats": torch.zeros(1)}, one))
    with pytest.raises(RunError, match="another train split"):
        source.standardise(Standardiser(one, one))


def test_moments_of_parts_join_to_those_of_the_whole_however_large_the_mean() -> None:
    pooling = PoolingSpec("stats", "stats", "chunk", (1,), ("pool", "dim"), (1, 3), {"statistics": ["mean"]})
    x = (
        torch.randn(301, 1, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        * torch.tensor([1e-2, 1.0, 50.0])
        + 3000
    )
    one, two = Moments(pooling), Moments(pooling)
    for part in x[:200].float().split(7):
        one.add(part)
    two.add(x[200:].float())
    one.exchange(lambda value: [value, (two.count, two.mean, two.square)])
    found = standardiser_of({"stats": one})
    assert one.count == 301
    assert torch.allclose(found.means["stats"], x.mean(0).float())
    seen = x.float().double()  # what float32 leaves of it
    assert torch.allclose(found.scales["stats"], (1 / seen.std(0, correction=0)).float(), rtol=1e-3)


def test_one_ahead_gives_everything_in_order_and_passes_errors_on() -> None:
    assert list(one_ahead(iter(range(1, 6)))) == [1, 2, 3, 4, 5]

    def broken() -> object:
        yield 1
        raise ValueError("second")

    items = one_ahead(broken())  # type: ignore[arg-type]
    assert next(items) == 1
    with pytest.raises(ValueError, match="second"):
        next(items)


def test_a_run_trains_on_features_in_an_object_store(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="object stores need obstore: pip install 'beatmeter[cloud]'")
    here = run(change(config, {"training": {"epochs": 2}}), tmp_path / "here", CPU, report=lambda text: None)
    with objectserver.serving() as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        away = change(config, {"training": {"epochs": 2}, "features": {"cache": "s3://music/caches"}})
        there = run(away, tmp_path / "there", CPU, report=lambda text: None)
        with pytest.raises(ConfigError, match="no folder"):
            open_source(
                change(away, {"regime": "streamed", "features": {"backbone": "embedded"}}),
                CPU,
                lambda text: None,
            )
    assert not list(Path().glob("s3:*"))
    one, other = (outcome.folder.predictions("test").read_text() for outcome in (here, there))
    assert one == other
