"""beatmeter cache: what people and machines are told, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_samples as samples
import zarr
from click.testing import CliRunner, Result

from beatmeter.cli.cache import cache
from beatmeter.errors import StoreError
from beatmeter.schema import FeatureSpec
from beatmeter.store import Store


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """A folder with two stores."""
    for of in (samples.spec(), samples.spec(samples.FRAMES)):
        store = Store.for_spec(tmp_path / "cache", of)
        for n in (0, 2):
            store.commit(samples.tracks(of, [n, n + 1]))
    return tmp_path / "cache"


def call(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(cache, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_info(stores: Path) -> None:
    text = call("info", stores).output
    assert "stats" in text
    assert "(layer 3, pool 2, dim 8)" in text
    assert "h of audio) in 2 commits" in text
    told = json.loads(call("info", stores, "--json").output)
    assert [one["tracks"] for one in told] == [4, 4]
    spec = samples.spec()
    mine = next(one for one in told if one["fingerprint"] == spec.fingerprint)
    assert mine["snapshot"] == Store.for_spec(stores, spec).snapshot().id
    assert mine["commits"] == 2
    assert mine["bytes"] > 1000
    assert [p["rows"] for p in mine["poolings"]] == [
        len(Store.for_spec(stores, spec).snapshot().load(None, p).values) for p in ("lag", "stats")
    ]
    (Path(mine["path"]) / "zarr.json").write_text("{}")
    assert "cannot be opened" in call("info", stores, status=1).output
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere.*beatmeter extract"):
        call("info", stores / "nowhere")


def test_verify_repair_compact_gc(stores: Path) -> None:
    assert "sound" in call("verify", stores, "--full").output
    store = Store.for_spec(stores, samples.spec())
    os.truncate(store.path / f"segments/{store.catalog.read(1).segment}/stats/c.0.0.0.0", 10)
    text = call("verify", store.path, status=1).output
    assert "DAMAGED" in text
    assert "commits/00000001.json" in text
    assert "beatmeter cache repair" in text
    report = json.loads(call("verify", store.path, "--json", status=1).output)[0]
    assert report["sound"] is False
    assert report["faults"][0]["tracks"] == [samples.key(0), samples.key(1)]
    assert "damaged_commits" in json.loads(call("info", store.path, "--json").output)[0]
    assert json.loads(call("repair", store.path, "--json", status=1).output)[str(store.path)][
        "lost"
    ] == sorted(map(samples.key, (0, 1)))
    call("verify", store.path, "--full")
    assert "0 tracks lost" in call("repair", stores).output
    told = json.loads(call("compact", stores, "--segment", "1M", "--json").output)
    assert sorted((c["before"], c["after"]) for c in told.values()) == [(1, 1), (2, 1)]
    assert "would go" in call("gc", stores, "--older-than", "0s", "--dry-run").output
    garbage = json.loads(call("gc", stores, "--older-than", "0", "--json").output)
    assert all(len(g) > 0 for g in garbage.values())
    assert json.loads(call("verify", stores, "--full", "--json").output)[0]["faults"] == []
    assert json.loads(call("gc", stores, "--json").output) == {name: [] for name in garbage}
    assert "not a number" in call("gc", stores, "--older-than", "soon", status=2).output


def test_failures(stores: Path) -> None:
    store = Store.for_spec(stores, samples.spec())
    assert "0 files could not be used" in call("failures", stores).output
    store.record_failure("k", "music/a\nb.wav", "only 0.5 s of audio")
    text = call("failures", stores, status=1).output
    assert "music/a\\nb.wav" in text
    assert "only 0.5 s of audio" in text
    assert json.loads(call("failures", stores, "--json", status=1).output)[0]["path"] == "music/a\nb.wav"
    assert "1 files could not be used" in call("info", stores).output
    call("failures", stores, "--clear")
    assert store.failures() == {}


def test_export(stores: Path, tmp_path: Path) -> None:
    store = Store.for_spec(stores, samples.spec())
    out = tmp_path / "features.h5"
    assert store.snapshot().id in call("export", store.path, "--out", out).output
    with h5py.File(out) as file:
        assert FeatureSpec.from_json(json.loads(file.attrs["spec"])) == store.spec
        assert file.attrs["fingerprint"] == store.spec.fingerprint
        assert [k.decode() for k in file["keys"]] == list(store.keys())
        for i, key in enumerate(store.keys()):
            features = store.snapshot().read(key)
            assert file["samples"][i] == features.samples
            for name, pooled in features.pooled.items():
                group = file[name]
                mine = slice(*group["offsets"][i : i + 2])
                np.testing.assert_array_equal(group["values"][mine], pooled.values)
                np.testing.assert_array_equal(group["times"][mine], pooled.times)
                np.testing.assert_array_equal(group["frames"][mine], pooled.frames)
                assert tuple(group["layers"]) == store.spec[name].layers
                assert [d.label for d in group["values"].dims] == ["row", "layer", *store.spec[name].axes]
    with pytest.raises(StoreError, match="exists"):
        call("export", store.path, "--out", out)
    call("export", store.path, "--out", out, "--pooling", "lag", "--overwrite")
    with h5py.File(out) as file:
        assert set(file) == {"keys", "samples", "lag"}
    with pytest.raises(StoreError, match=r"2 stores.*Choose one: .*tiny-v1-"):
        call("export", stores, "--out", tmp_path / "both.h5")
    with pytest.raises(StoreError, match="exporting failed"):
        call("export", store.path, "--out", tmp_path / "nowhere" / "f.h5")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["features.h5"]


def test_a_zarr_export_holds_what_an_hdf5_export_holds(stores: Path, tmp_path: Path) -> None:
    store = Store.for_spec(stores, samples.spec())
    order = ("export", store.path, "--format", "zarr", "--out", tmp_path / "f.zarr")
    call("export", store.path, "--out", tmp_path / "f.h5")
    call(*order, "--pooling", "lag")
    with pytest.raises(StoreError, match="exists"):
        call(*order)
    call(*order, "--overwrite")
    group = zarr.open_group(tmp_path / "f.zarr", mode="r", zarr_format=3)
    with h5py.File(tmp_path / "f.h5") as file:
        assert dict(group.attrs) == dict(file.attrs)
        assert list(group["keys"][:]) == [key.decode() for key in file["keys"]]
        assert np.array_equal(group["samples"][:], file["samples"])
        assert set(group.group_keys()) == set(file) - {"keys", "samples"}
        for name in group.group_keys():
            assert dict(group[name].attrs) == dict(file[name].attrs)
            for array in ("values", "times", "frames", "offsets", "layers"):
                ours, theirs = group[name][array], file[name][array]
                assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
                np.testing.assert_array_equal(ours[...], theirs[...])
                assert list(ours.metadata.dimension_names) == [axis.label for axis in theirs.dims]
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreError, match="no Zarr group"):
        call("export", store.path, "--format", "zarr", "--overwrite", "--out", tmp_path / "mine")
    assert {p.name for p in tmp_path.iterdir()} == {"f.h5", "f.zarr", "mine", stores.name}


def test_export_of_an_empty_store(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", samples.spec())
    call("export", store.path, "--format", "zarr", "--out", tmp_path / "f.zarr")
    assert zarr.open_group(tmp_path / "f.zarr", mode="r")["stats/values"].shape == (0, 3, 2, 8)
    call("export", store.path, "--out", tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert len(file["keys"]) == 0
        assert file["stats/values"].shape == (0, 3, 2, 8)


def test_help_is_instant() -> None:
    """Neither torch nor h5py is needed to tell how a command is used."""
    code = (
        "import sys\n"
        "from beatmeter.cli.cache import cache\n"
        "try: cache(['verify', '--help'])\n"
        "except SystemExit: pass\n"
        "bad = {'torch', 'h5py', 'zarr'} & set(sys.modules)\n"
        "sys.exit(f'imports {bad}' if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exit status" in done.stdout
