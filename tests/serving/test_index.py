"""The index: exact against a plain product, lists against exact, changes that are killed, damaged files."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beatmeter.errors import DataError, RunError
from beatmeter.runtime import atomic
from beatmeter.runtime.lock import held
from beatmeter.serving.index import Entries, Index
from beatmeter.serving.index import index as module

DIM = 24


def vectors(n: int, seed: int = 0, towards: float = 0.0) -> np.ndarray:
    """Unit vectors; with `towards` they all point one way, as mean-pooled layers do."""
    x = np.random.default_rng(seed).normal(size=(n, DIM)) + towards
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")


def entries(n: int, seed: int = 0, name: str = "t", towards: float = 0.0) -> Entries:
    return Entries(
        [f"{name}{i}" for i in range(n)], vectors(n, seed, towards), groups=[f"g{i // 4}" for i in range(n)]
    )


def plain(x: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(q.astype("f8") @ x.T.astype("f8")), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("towards", [0.0, 5.0])
def test_the_search_is_exact(tmp_path: Path, towards: float) -> None:
    made = entries(5003, towards=towards)  # cosines of .97 with towards = 5: bfloat16 alone would tie them
    index = Index.create(tmp_path / "i", DIM)
    assert index.add(made) == 5003
    q = vectors(150, 1, towards)
    hits = index.search(q, 10)
    right = plain(made.vectors, q, 10)
    np.testing.assert_array_equal(hits.rows, right)
    assert hits.ids[3] == [f"t{i}" for i in right[3]]
    np.testing.assert_allclose(hits.scores, np.take_along_axis(q @ made.vectors.T, right, 1), atol=1e-6)
    assert index.search(made.vectors[7], 1).ids == [["t7"]]
    alone = index.search(q[3:4], 10)
    np.testing.assert_array_equal(alone.scores[0], hits.scores[3])  # a query scores the same in any batch


def test_ids_spans_and_groups_come_back(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", DIM)
    made = entries(20)
    spans = np.array([[5.0 * i, 5.0 * i + 5] for i in range(20)])
    notes = [bytes([i]) * i for i in range(20)]
    index.add(Entries(["ä;\n🎵"] * 20, made.vectors, spans, ["g"] * 20, notes))  # 20 chunks of one track
    found = Index.open(tmp_path / "i").entries([19, 0])
    assert (found.ids, found.groups) == (["ä;\n🎵"] * 2, ["g"] * 2)
    assert found.notes == [notes[19], b""]
    np.testing.assert_array_equal(found.spans, spans[[19, 0]])
    np.testing.assert_array_equal(found.vectors, made.vectors[[19, 0]])
    assert index.remove(["ä;\n🎵"] * 2, spans[[3, 4]]) == 2
    assert len(index) == 18
    assert "ä;\n🎵" in index
    assert index.remove(["ä;\n🎵"]) == 18
    assert (len(index), index.search(made.vectors[:2], 5).ids) == (0, [[], []])
    assert "x" not in index


def test_adding_in_parts_and_removing_is_one_index(tmp_path: Path) -> None:
    made = entries(3000)
    index = Index.create(tmp_path / "i", DIM)
    for at in range(0, 3000, 100):
        assert index.add(made.take(np.arange(at, at + 100))) == 100
    assert len(list((tmp_path / "i").glob("shard-*"))) < 8  # small shards are merged
    q = vectors(10, 1)
    np.testing.assert_array_equal(
        index.search(q, 5).ids, np.array([[f"t{i}" for i in row] for row in plain(made.vectors, q, 5)])
    )
    assert index.add(made) == 0  # again: nothing new
    gone = {name for row in index.search(q, 3).ids for name in row}
    assert index.remove([*sorted(gone), "never there"]) == len(gone)
    left = np.array([i for i, name in enumerate(made.ids) if name not in gone])
    expected = [[f"t{left[i]}" for i in row] for row in plain(made.vectors[left], q, 5)]
    assert index.search(q, 5).ids == expected
    assert Index.open(tmp_path / "i").search(q, 5).ids == expected
    index.remove([f"t{i}" for i in range(0, 3000, 2)])  # more than a quarter: written again
    assert not list((tmp_path / "i").glob("gone-*"))
    assert len(index) == sum(i % 2 for i in left)
    lost = 3000 - len(index)
    assert index.add(made) == lost  # removed ones can come back
    assert len(index) == 3000


def test_more_neighbours_than_rows(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", DIM)
    assert index.search(vectors(2), 3).ids == [[], []]
    index.add(entries(5))
    for exact in (True, False):
        hits = index.search(vectors(2, 9), 50, exact=exact)
        assert hits.scores.shape == (2, 5)
        assert sorted(hits.ids[0]) == [f"t{i}" for i in range(5)]
    index.build_cells()
    assert sorted(index.search(vectors(2, 9), 50).ids[0]) == [f"t{i}" for i in range(5)]


def test_normalised_scores_are_those_of_the_whole_matrix(tmp_path: Path) -> None:
    made = entries(700, towards=0.5)
    index = Index.create(tmp_path / "i", DIM)
    index.add(made)
    q = vectors(8, 2)
    matrix = made.vectors.astype("f8") @ made.vectors.T
    z = (q @ made.vectors.T - matrix.mean(axis=1)) / matrix.std(axis=1)
    right = np.argsort(-z, axis=1)[:, :7]
    hits = index.search(q, 7, normalise=True)
    np.testing.assert_array_equal(hits.rows, right)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(z, right, 1), rtol=1e-4)
    index.build_cells(recall=1.0)
    assert index.search(q, 7, exact=False, normalise=True).ids == hits.ids


def test_inverted_lists_have_the_recall_that_they_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    centres = 2 * rng.normal(size=(60, DIM))
    x = (centres[rng.integers(0, 60, 6000)] + rng.normal(size=(6000, DIM))).astype("f4")
    index = Index.create(tmp_path / "i", DIM)
    index.add(Entries([str(i) for i in range(6000)], x))
    index.remove([str(i) for i in range(50)])
    about = index.build_cells(recall=0.9)
    assert 0.85 <= about["recall"] <= 1
    assert about["probes"] < 155 / 3
    q = x[100:300] + 0.01
    exact, near = index.search(q, 10).ids, index.search(q, 10, exact=False).ids
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, near, strict=True)])
    assert recall >= 0.87
    assert recall < 1  # or nothing was left out
    again = Index.open(tmp_path / "i")
    assert again.cells == about
    assert again.search(q, 10, exact=False).ids == near
    again.add(Entries(["new"], q[:1]))  # rows that came later are read whole
    assert again.search(q[:1], 1, exact=False).ids == [["new"]]
    again.remove([near[1][0]])
    assert near[1][0] not in again.search(q[1:2], 10, exact=False).ids[0]
    right = plain(x[50:], q, 1)[:, 0] + 50
    found = [int(row[0]) for row in again.search(q[2:], 1).ids]
    assert found == right[2:].tolist()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", DIM)
    index.add(entries(4))
    bad = vectors(2)
    bad[1, 3] = np.nan
    for call, said in (
        (lambda: Index.create(tmp_path / "i", DIM), "is there already"),
        (lambda: Index.open(tmp_path / "none"), "there is no folder"),
        (lambda: Index.open(tmp_path), "is no index"),
        (lambda: Entries(["a"], vectors(2)), "2 vectors have 1 ids"),
        (lambda: Entries(["a", "b"], bad), "1 of 2 vectors hold values that are not finite, first b"),
        (lambda: Entries(["a", ""], vectors(2)), "an id is empty"),
        (lambda: index.add(Entries(["a", "a"], vectors(2))), "a is to be added twice"),
        (lambda: index.add(Entries(["t1"], vectors(1))), "t1 is in the index with another vector"),
        (lambda: index.add(Entries(["a"], np.zeros((1, 3), "f4"))), "have 3 numbers, the index has 24"),
        (lambda: index.search(np.zeros((1, 3))), "have 3 numbers, the index has 24"),
        (lambda: index.search(bad), "not finite"),
        (lambda: index.search(vectors(1), 0), "k = 0"),
        (lambda: index.build_cells(recall=1.5), "a recall of 1.5"),
        (lambda: Index.create(tmp_path / "e", DIM).build_cells(), "is empty"),
        (lambda: index.entries([4]), "no row 4"),
    ):
        with pytest.raises(DataError, match=said):
            call()
    assert len(index) == 4
    with held(tmp_path / "i" / ".lock", "x"), pytest.raises(RunError, match="is changing"):
        index.add(entries(1, name="u"))


def test_damage_is_named(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", DIM)
    index.add(entries(40))
    file = next((tmp_path / "i").glob("shard-*/vectors.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"vectors\.npy is damaged"):
        Index.open(tmp_path / "i")
    assert len(Index.open(tmp_path / "i", check=False)) == 40
    file.write_bytes(whole[:-8])
    with pytest.raises(DataError, match=r"vectors\.npy has \d+ bytes, \d+ were written"):
        Index.open(tmp_path / "i", check=False)
    file.unlink()
    with pytest.raises(DataError, match=r"vectors\.npy is missing"):
        Index.open(tmp_path / "i")
    file.write_bytes(whole)
    manifest = tmp_path / "i" / "index.json"
    text = manifest.read_text()
    for broken, said in (
        ("{", "not valid JSON"),
        ("{}", "missing"),
        (text.replace('"format": 2', '"format": 9'), "format 9"),
    ):
        manifest.write_text(broken)
        with pytest.raises(DataError, match=said):
            Index.open(tmp_path / "i")


@pytest.mark.parametrize("step", range(14))
def test_a_change_that_is_killed_leaves_the_index_of_before_or_after(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every place where a change touches the disk, in turn: everything after it never happens."""
    index = Index.create(tmp_path / "i", DIM)
    index.add(entries(64))
    left = [step]

    class Killed(BaseException):
        pass

    def counted(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for where, name in (
            (os, "fsync"),
            (Path, "rename"),
            (Path, "replace"),
            (Path, "mkdir"),
            (atomic, "write_bytes"),
        ):
            patch.setattr(where, name, counted(getattr(where, name)))
        with contextlib.suppress(Killed):
            index.add(entries(20, 5, "u"))
    again = Index.open(tmp_path / "i")
    assert len(again) in (64, 84)
    assert again.search(vectors(1), 1).ids == [["t0"]]
    again.add(entries(20, 5, "u"))
    assert len(again) == 84
    manifest = json.loads((tmp_path / "i" / "index.json").read_text())
    names = {record["name"] for record in manifest["shards"]}
    assert {p.name for p in (tmp_path / "i").iterdir()} == {"index.json", *names}  # no rubbish is left


def test_readers_keep_what_they_opened(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", DIM)
    index.add(entries(64))
    reader = Index.open(tmp_path / "i")
    code = (
        "import sys; import numpy as np; from beatmeter.serving.index import Index\n"
        f"i = Index.open({str(tmp_path / 'i')!r}); i.remove([f't{{n}}' for n in range(40)])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert reader.search(vectors(1), 1).ids == [["t0"]]
    reader.refresh()
    assert len(reader) == 24
    assert index.add(entries(40)) == 40  # a writer goes on from what is there now


def test_a_shard_is_never_larger_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 256)
    made = entries(1500)
    index = Index.create(tmp_path / "i", DIM)
    for at in range(0, 1500, 150):
        index.add(made.take(np.arange(at, at + 150)))
    q = vectors(6, 4)
    right = [[f"t{i}" for i in row] for row in plain(made.vectors, q, 8)]
    assert index.search(q, 8).ids == right
    assert all(
        record["rows"] <= 256 for record in json.loads((tmp_path / "i" / "index.json").read_text())["shards"]
    )
    index.build_cells(recall=1.0)
    assert index.search(q, 8, exact=False).ids == right
    assert index.search(q, 8).ids == right
