"""What is read is what was committed: for any features, by any way of reading, and for Zarr's own library."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import store_samples as samples
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.errors import FingerprintError, SchemaError, StoreError
from beatmeter.schema import Features, FeatureSpec, Pooled, PoolingSpec
from beatmeter.store import MissingTracksError, Store, UnstorableError
from beatmeter.store.layout import StoreLayout


@st.composite
def specs(draw: st.DrawFn) -> FeatureSpec:
    layers = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True).map(sorted))
    axes = draw(st.lists(st.integers(1, 5), max_size=3))
    names = tuple("abc"[: len(axes)])
    poolings = [PoolingSpec("chunks", "stats", "chunk", tuple(layers), names, tuple(axes), {})]
    if draw(st.booleans()):
        poolings.append(
            PoolingSpec(
                "windows",
                "lag",
                "window",
                (draw(st.integers(1, 5)),),
                ("lag",),
                (300,),
                {"window": draw(st.integers(1, 4))},
            )
        )
    if draw(st.booleans()):
        poolings.append(
            PoolingSpec(
                "frames",
                "frames",
                "frame",
                (1, 2),
                ("dim",),
                (draw(st.integers(1, 3)),),
                {"step": draw(st.integers(1, 100))},
            )
        )
    return samples.spec(*poolings, store_dtype=draw(st.sampled_from(["float16", "float32"])), n_layers=5)


@settings(max_examples=30)
@given(
    of=specs(),
    lengths=st.lists(st.integers(1000, 40_000), min_size=1, max_size=7),
    cuts=st.sets(st.integers(1, 6)),
    data=st.data(),
)
def test_any_features_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    of: FeatureSpec,
    lengths: list[int],
    cuts: set[int],
    data: st.DataObject,
) -> None:
    store = Store.for_spec(tmp_path_factory.mktemp("cache"), of)
    made = {samples.key(i): samples.features(of, i, n) for i, n in enumerate(lengths)}
    keys = list(made)
    edges = [0, *sorted(c for c in cuts if c < len(keys)), len(keys)]
    for a, b in itertools.pairwise(edges):
        assert store.commit([(k, made[k]) for k in keys[a:b]]).added == tuple(keys[a:b])
    snapshot = Store.open(store.path).snapshot()
    assert sorted(made) == list(snapshot.keys) == list(store.keys())
    assert all(samples.same(snapshot.read(k), made[k]) for k in keys)
    wanted = data.draw(st.lists(st.sampled_from(keys), max_size=10))
    for pooling in of.poolings:
        layers = data.draw(st.none() | st.lists(st.sampled_from(pooling.layers), min_size=1, max_size=6))
        check = data.draw(st.sampled_from(["first", "always", "never"]))
        values, offsets = snapshot.load(wanted, pooling.name, layers=layers, check=check)
        at = [pooling.layers.index(n) for n in layers or pooling.layers]
        assert len(offsets) == len(wanted) + 1
        for i, k in enumerate(wanted):
            np.testing.assert_array_equal(
                values[offsets[i] : offsets[i + 1]], made[k].pooled[pooling.name].values[:, at]
            )
        scanned = {}
        for block in snapshot.scan(
            pooling.name, layers=layers, block_bytes=data.draw(st.sampled_from([1, 5000, 1 << 20]))
        ):
            scanned |= {
                k: block.values[block.offsets[i] : block.offsets[i + 1]] for i, k in enumerate(block.keys)
            }
        assert scanned.keys() == made.keys()
        for k in keys:
            np.testing.assert_array_equal(scanned[k], made[k].pooled[pooling.name].values[:, at])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_zarr_python_reads_the_same(tmp_path: Path, dtype: str) -> None:
    wide = PoolingSpec(
        "wide", "stats", "chunk", (1, 2), ("dim",), (700,), {}
    )  # long rows lie on cache lines, short ones dense
    of = samples.spec(samples.STATS, samples.FRAMES, wide, store_dtype=dtype)
    store = Store.create(tmp_path / "store", of)
    store.commit(samples.tracks(of, range(5)))
    store.commit(samples.tracks(of, range(5, 8)))
    snapshot = store.snapshot()
    segments = dict(zarr.open_group(store.path / "segments", mode="r").groups())
    assert len(segments) == 2
    seen = 0
    for number, name in ((1, range(5)), (2, range(5, 8))):
        record = store.catalog.read(number)
        group = segments[record.segment]
        for pooling in of.poolings:
            array = group[pooling.name]
            assert isinstance(array, zarr.Array)
            assert array.chunks == (1, *pooling.row_shape)
            assert array.shards == array.shape
            assert np.isnan(array.fill_value)
            assert array.metadata.dimension_names == ("row", "layer", *pooling.axes)  # type: ignore[union-attr]
            ours, _ = snapshot.load([samples.key(n) for n in name], pooling.name)
            np.testing.assert_array_equal(ours, array[:])
            extent = record.extents[pooling.name]
            np.testing.assert_array_equal(
                ours[extent.first[1] :][: extent.counts[1]],
                array[extent.first[1] : extent.first[1] + extent.counts[1]],
            )
            seen += 1
    assert seen == 6


def test_zarr_python_writes_what_we_read(tmp_path: Path) -> None:
    """The bytes of a short-row shard are those that Zarr's own writer makes of the same values and
    metadata."""
    of = samples.spec(samples.STATS)
    layout = StoreLayout(of).arrays["stats"]
    values = samples.features(of, 1, 30_000).pooled["stats"].values
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "zarr.json").write_bytes(layout.metadata(len(values)))
    array = zarr.open_array(tmp_path / "stats", mode="r+")
    array[:] = values
    assert (tmp_path / layout.shard).read_bytes() == layout.encode(values).tobytes() + layout.index(
        len(values)
    )


def test_first_commit_of_a_key_wins(tmp_path: Path) -> None:
    of = samples.spec()
    store = Store.for_spec(tmp_path, of)
    first, second = samples.features(of, 1, 20_000), samples.features(of, 2, 20_000)
    assert store.commit([("k", first), ("k", second), ("other", second)]).added == ("k", "other")
    receipt = Store.for_spec(tmp_path, of).commit([("k", second), ("new", first)])
    assert (receipt.added, receipt.present) == (("new",), ("k",))
    assert store.commit([("k", second)]) == type(receipt)("", 0, (), ("k",))
    assert samples.same(store.snapshot().read("k"), first)


def test_a_snapshot_is_frozen_and_named_by_its_contents(tmp_path: Path) -> None:
    of = samples.spec()
    one, other = Store.create(tmp_path / "one", of), Store.create(tmp_path / "other", of)
    one.commit(samples.tracks(of, range(4)))
    before = one.snapshot()
    one.commit(samples.tracks(of, range(4, 6)))
    assert len(before) == 4
    assert samples.key(5) not in before
    assert samples.key(5) in one
    for n in (5, 3, 1, 0, 2, 4):  # other commits, other order, same features
        other.commit(samples.tracks(of, [n]))
    assert one.snapshot().id == other.snapshot().id != before.id
    assert before.id == pickle.loads(pickle.dumps(before)).id
    assert samples.same(pickle.loads(pickle.dumps(before)).read(samples.key(2)), samples.features(of, 2))
    changed = Store.create(tmp_path / "changed", of)
    changed.commit(
        [
            *samples.tracks(of, range(3)),
            (samples.key(3), samples.features(of, 99, samples.features(of, 3).samples)),
        ]
    )
    assert changed.snapshot().id != before.id


def test_store_without_tracks(tmp_path: Path) -> None:
    of = samples.spec()
    snapshot = Store.create(tmp_path / "s", of).snapshot()
    assert (len(snapshot), list(snapshot.keys), list(snapshot.scan("stats"))) == (0, [], [])
    assert snapshot.load(None, "stats").values.shape == (0, 3, 2, 8)
    with pytest.raises(MissingTracksError, match="beatmeter extract"):
        snapshot.read("absent")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    of = samples.spec()
    store = Store.create(tmp_path / "s", of)
    store.commit(samples.tracks(of, range(3)))
    snapshot = store.snapshot()
    with pytest.raises(MissingTracksError) as missing:
        snapshot.load([samples.key(1), "nö", samples.key(9)], "stats")
    assert missing.value.keys == ("nö", samples.key(9))
    assert store.missing([samples.key(9), samples.key(1), samples.key(9), "x" * 500]) == [
        samples.key(9),
        "x" * 500,
    ]
    with pytest.raises(SchemaError, match=r"no pooling 'mean'.*lag, stats"):
        snapshot.load(None, "mean")
    with pytest.raises(StoreError, match=r"layers \[4\].*1, 2, 3"):
        snapshot.load(None, "stats", layers=[2, 4])


def test_read_into_a_given_array(tmp_path: Path) -> None:
    of = samples.spec()
    store = Store.create(tmp_path / "s", of)
    store.commit(samples.tracks(of, range(3)))
    snapshot = store.snapshot()
    plain = snapshot.load(None, "stats", layers=[3, 1])
    out = np.zeros((1000, 2, 2, 8), np.float16)
    values, offsets = snapshot.load(None, "stats", layers=[3, 1], out=out)
    assert np.shares_memory(values, out)
    np.testing.assert_array_equal(values, plain.values)
    assert len(values) == offsets[-1]
    for bad in (out.astype(np.float32), out[:3], out[:, :1]):
        with pytest.raises(StoreError, match="cannot take rows"):
            snapshot.load(None, "stats", layers=[3, 1], out=bad)


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.inf, "float16"), (np.nan, "float32"), (70_000.0, "float16")]
)
def test_values_that_do_not_fit_are_refused_by_name(tmp_path: Path, value: float, dtype: str) -> None:
    of = samples.spec(store_dtype=dtype)
    store = Store.create(tmp_path / "s", of)
    good, other = samples.features(of, 0, 20_000), samples.features(of, 1, 20_000)
    values = other.pooled["lag"].values.astype(np.float32)
    values[0, 1, 0, 2:4] = 1.0
    bad = Features(
        of,
        other.samples,
        {**other.pooled, "lag": Pooled(values, other.pooled["lag"].times, other.pooled["lag"].frames)},
    )
    values[0, 1, 0, 2:4] = value  # Features refuses what is not finite, but arrays can change afterwards
    with pytest.raises(
        UnstorableError, match="track bad, 2 values of 'lag' layer 3 are not finite"
    ) as refused:
        store.commit([("good", good), ("bad", bad)])
    assert set(refused.value.tracks) == {"bad"}
    assert list(store.keys()) == []
    assert store.backend.list("tmp") == []
    assert store.backend.list("segments") == ["zarr.json"]


def test_rows_that_do_not_follow_from_the_length_are_refused(tmp_path: Path) -> None:
    of = samples.spec()
    store = Store.create(tmp_path / "s", of)
    good = samples.features(of, 0, 20_000)
    with pytest.raises(StoreError, match="15000 samples give 1 rows of 'lag' at known times; these"):
        store.commit([("k", Features(of, 15_000, good.pooled))])
    stats = good.pooled["stats"]
    shifted = Features(
        of, 20_000, {**good.pooled, "stats": Pooled(stats.values, stats.times + 0.5, stats.frames)}
    )
    with pytest.raises(StoreError, match="Times are not stored"):
        store.commit([("k", shifted)])
    with pytest.raises(StoreError, match="cannot be a track key"):
        store.commit([("../k", good)])


def test_another_fingerprint_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    of, other = samples.spec(), samples.spec(weights="1" * 64)
    store = Store.create(tmp_path / "s", of)
    with pytest.raises(FingerprintError, match=r"weights: 0000.* != 1111"):
        Store.open(store.path, other)
    with pytest.raises(FingerprintError, match="weights"):
        Store.create(store.path, other)
    with pytest.raises(FingerprintError, match="weights"):
        store.commit(samples.tracks(other, [1]))


def test_stores_are_found_by_what_they_hold(tmp_path: Path) -> None:
    one_layer = PoolingSpec(
        "stats", "stats", "chunk", (2,), ("pool", "dim"), (2, 8), {"statistics": ["mean", "max"]}
    )
    wanted, large, foreign = samples.spec(one_layer), samples.spec(), samples.spec(revision="r2")
    assert Store.find_covering(tmp_path / "none", wanted) is None
    Store.for_spec(tmp_path, foreign)
    assert Store.find_covering(tmp_path, wanted) is None
    store = Store.for_spec(tmp_path, large)
    assert store.path.name == f"tiny-v1-{large.fingerprint[:16]}"
    store.commit(samples.tracks(large, range(2)))
    found = Store.find_covering(tmp_path, wanted)
    assert found is not None
    assert found.path == store.path
    own = Store.for_spec(tmp_path, wanted)
    found = Store.find_covering(tmp_path, wanted)
    assert found is not None
    assert found.path == own.path
    with pytest.raises(StoreError, match="no feature store"):
        Store.for_spec(tmp_path, samples.spec(revision="r3"), create=False)
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.wav").touch()
    with pytest.raises(StoreError, match="is not a feature store"):
        Store.create(tmp_path / "music", wanted)


def test_failures_are_remembered_until_cleared_or_done(tmp_path: Path) -> None:
    of = samples.spec()
    store = Store.create(tmp_path / "s", of)
    store.record_failure(samples.key(1), "music/a b.wav", "only 0.5 s of audio")
    store.record_failure(samples.key(2), "music/\udcff\n.mp3", "cannot be decoded")
    store.record_failure(samples.key(3), "c.wav", "silent")
    store.record_failure(samples.key(3), "c.wav", "truncated")
    found = Store.open(store.path).failures()
    assert {f.reason for f in found.values()} == {"only 0.5 s of audio", "cannot be decoded", "truncated"}
    assert found[samples.key(2)].path == "music/\udcff\n.mp3"
    other = Store.open(store.path)
    other.clear_failures([samples.key(1)])
    other.commit(samples.tracks(of, [2]))
    assert list(store.failures()) == [samples.key(3)]
    store.clear_failures()
    assert store.failures() == other.failures() == {}


@settings(max_examples=60)
@given(
    rows=st.integers(1, 5), layers=st.integers(1, 30), size=st.integers(1, 70), seed=st.integers(0, 2**32 - 1)
)
def test_checksums_of_layers_join_to_those_of_rows(rows: int, layers: int, size: int, seed: int) -> None:
    pooling = PoolingSpec("chunks", "stats", "chunk", tuple(range(1, layers + 1)), ("dim",), (size,), {})
    array = StoreLayout(samples.spec(pooling, n_layers=layers)).arrays["chunks"]
    values = np.random.default_rng(seed).standard_normal((rows, layers, size)).astype(np.float16)
    data, sums = array.split(array.encode(values))
    np.testing.assert_array_equal(array.joined(array.layer_sums(data)), sums)
