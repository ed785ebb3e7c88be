"""Metrics of retrieval against their definitions, and the file of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beatmeter.errors import DataError, EvaluationError, SchemaError
from beatmeter.evaluation.figures.collection import principal_axes
from beatmeter.evaluation.metrics.retrieval import (
    average_precision,
    first_rank,
    hit_at,
    hubness,
    occurrences,
    precision_at_r,
    rank,
    same_auc,
    same_aucs,
)
from beatmeter.evaluation.records import read_records, write_records
from beatmeter.evaluation.similarity import above, judge, judge_parts, parts_of, selectivity
from beatmeter.schema import Embeddings

# the query 0 (label a) ranks 1 (b), 2 (a), 3 (c), 4 (a)
S = np.zeros((5, 5))
S[0] = [9, 4, 3, 2, 1]
LABELS = ("a", "b", "a", "c", "a")


def embeddings(n: int = 12, seed: int = 0, works: int = 4) -> Embeddings:
    rng = np.random.default_rng(seed)
    labels = tuple(f"work {i % works}" for i in range(n))
    centres = rng.standard_normal((works, 8)) * 3
    vectors = np.stack([centres[i % works] for i in range(n)]) + rng.standard_normal((n, 8))
    return Embeddings(
        ids=tuple(f"track {i}" for i in range(n)),
        groups=labels,
        sources=("",) * n,
        split="",
        times=np.full((n, 2), np.nan),
        vectors=vectors.astype(np.float32),
        labels=labels,
        chroma=tuple(rng.random((5 + i, 12)).astype(np.float16).astype(np.float32) for i in range(n)),
        views=rng.random((n, 5)).astype(np.float32),
        view_names=(("rhythm", 3), ("timbre", 2)),
        meta={"model": "m"},
    )


def test_one_query_by_hand() -> None:
    ranking = rank(S, LABELS)
    assert ranking.order[0].tolist() == [1, 2, 3, 4]
    assert average_precision(ranking)[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert precision_at_r(ranking)[0] == pytest.approx((0 + 1 / 2) / 2)
    assert [hit_at(ranking, k)[0] for k in (1, 2)] == [0, 1]
    assert first_rank(ranking)[0] == 2
    assert np.isnan(average_precision(ranking)[[1, 3]]).all(), "nothing is relevant to b and c"


def test_a_clip_is_never_relevant_to_itself() -> None:
    ranking = rank(np.eye(4) * 100, ("a", "b", "c", "d"))
    assert not ranking.known.any()
    assert all(i not in row for i, row in enumerate(ranking.order.tolist()))


def test_an_empty_label_is_relevant_to_nothing() -> None:
    assert not rank(np.ones((3, 3)), ("", "", "")).known.any()


def test_precision_equals_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    s, labels = rng.random((20, 20)), [f"{i % 6}" for i in range(20)]
    found = average_precision(rank(s, labels))
    for i in range(20):
        others = [j for j in range(20) if j != i]
        truth = [labels[j] == labels[i] for j in others]
        assert found[i] == pytest.approx(average_precision_score(truth, s[i, others]))


def test_hubs_are_seen() -> None:
    rng = np.random.default_rng(0)
    even = rng.standard_normal((60, 40))
    even /= np.linalg.norm(even, axis=1, keepdims=True)
    s = even @ even.T
    hub = s.copy()
    hub[:, 0] += 10
    labels = [str(i // 2) for i in range(60)]
    assert occurrences(rank(hub, labels))[0] == 59
    assert hubness(rank(hub, labels)) > hubness(rank(s, labels)) + 1


def test_area_of_a_factor_by_pairs() -> None:
    rng = np.random.default_rng(1)
    s, works = rng.random((9, 9)), [str(i // 2) for i in range(9)]
    factor = ["x", "y", "x", "x", "y", "", "y", "x", "y"]
    same, other = [], []
    for i in range(9):
        for j in range(i):
            if works[i] != works[j] and factor[i] and factor[j]:
                (same if factor[i] == factor[j] else other).append(s[i, j] + s[j, i])
    wins = np.mean([(a > b) + (a == b) / 2 for a in same for b in other])
    assert same_auc(s, works, factor) == pytest.approx(wins)
    assert np.isnan(same_auc(s, works, ["x"] * 9))


@pytest.mark.parametrize(("s", "message"), [(np.full((5, 5), np.nan), "finite"), (np.zeros((4, 5)), "shape")])
def test_what_cannot_be_ranked_is_refused(s: np.ndarray, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        rank(s, LABELS)


def test_judging_beats_shuffled_vectors_and_says_what_is_missing() -> None:
    record = embeddings(24, works=6)
    found = judge(record)
    assert found.metrics["mAP"].value > found.null["mAP"] + 0.3
    assert found.metrics["mAP"].low <= found.metrics["mAP"].value <= found.metrics["mAP"].high
    assert found.labels == 6
    with pytest.raises(EvaluationError, match="same label"):
        judge(embeddings(4, works=4))


def test_a_view_tells_a_factor_apart_or_not_with_intervals_over_labels() -> None:
    rng = np.random.default_rng(1)
    labels = [f"w{i // 3}" for i in range(60)]
    room, key = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    tempo = np.exp(rng.normal(size=60))
    hears = -np.abs(room[:, None] - room[None]) + 0.5 * rng.normal(size=(60, 60))
    texts = {"room": room, "key": key, "tempo": tempo}
    factors = {name: ([str(v) for v in values], 0.0) for name, values in texts.items()}
    factors["tempo"] = (factors["tempo"][0], 0.5)
    found = selectivity({"deaf": rng.normal(size=(60, 60)), "room": hears}, labels, factors)
    assert found["room"]["room"].low > 0.8
    for view, factor in (("deaf", "room"), ("room", "key"), ("room", "tempo")):
        assert found[view][factor].low < 0.5 < found[view][factor].high, (view, factor)
    pairs = [(i, j) for i in range(60) for j in range(i) if labels[i] != labels[j]]
    alike = [abs(np.log(tempo[i] / tempo[j])) <= np.log(1.5) for i, j in pairs]
    likeness = np.array([hears[i, j] + hears[j, i] for i, j in pairs])
    from sklearn.metrics import roc_auc_score

    assert found["room"]["tempo"].value == pytest.approx(roc_auc_score(alike, likeness))
    twice = same_aucs(hears, labels, factors["room"][0], 0.0, np.full((1, 60), 2.0))
    assert twice[0] == pytest.approx(found["room"]["room"].value)
    assert np.isnan(selectivity({"v": hears}, labels, {"one": (["x"] * 60, 0.0)})["v"]["one"].value)
    with pytest.raises(EvaluationError, match="must be numbers"):
        same_auc(hears, labels, ["a"] * 60, 0.1)


def test_queries_are_judged_by_what_they_are_among_the_whole_gallery() -> None:
    record = embeddings(24, works=6)
    scores = record.unit @ record.unit.T
    values = ["cover" if i < 6 else "score" for i in range(23)] + [""]
    found = judge_parts(record, scores, values, "mAP")
    each = average_precision(rank(scores, record.labels))
    assert found["cover"].value == pytest.approx(each[:6].mean())
    assert (found["cover"].n, found["score"].n, set(found)) == (6, 17, {"cover", "score"})
    quarters = parts_of([str(x) for x in np.linspace(0.7, 1.3, 23)] + [""])
    assert quarters[0] == "0.7 to 0.85"
    assert quarters[-2:] == ["1.15 to 1.3", ""]
    assert parts_of(["x", "y"] * 12) == ["x", "y"] * 12
    apart = above(record, np.zeros_like(scores), scores)
    assert apart.low > 0
    assert above(record, scores, scores).value == 0


def test_principal_axes_hold_what_they_say() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 0.1, 0.1, 0.1]
    points, shares = principal_axes(x)
    assert points.var(axis=0).sum() / x.var(axis=0).sum() == pytest.approx(shares.sum())
    assert shares[0] > shares[1] > 0.1
    assert np.allclose(principal_axes(x[::-1])[0][::-1], points)
    line, alone = principal_axes(np.arange(6.0).reshape(6, 1))
    assert line.shape == (6, 2)
    assert alone.tolist() == [1, 0]


def test_embeddings_come_back_from_their_file_and_other_programs_read_it(tmp_path: Path) -> None:
    record = embeddings()
    first = write_records(tmp_path / "e.npz", record)
    back = read_records(tmp_path / "e.npz")
    assert isinstance(back, Embeddings)
    for name in ("ids", "groups", "labels", "view_names", "meta"):
        assert getattr(back, name) == getattr(record, name)
    assert np.array_equal(back.vectors, record.vectors)
    assert np.array_equal(back.view("timbre"), record.view("timbre"))
    assert all(np.array_equal(a, b) for a, b in zip(back.chroma, record.chroma, strict=True))
    assert write_records(tmp_path / "again.npz", record) == first
    with np.load(tmp_path / "e.npz") as file:
        assert file["ids"].tolist() == list(record.ids)
        assert file["vectors"].shape == (12, 8)
    taken = back.take([3, 1])
    assert taken.ids == ("track 3", "track 1")
    assert np.array_equal(taken.chroma[0], record.chroma[3])


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    write_records(path, embeddings())
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match="was changed"):
        read_records(path)


def test_vectors_that_are_not_finite_and_views_that_are_not_there_are_refused() -> None:
    record = embeddings()
    with pytest.raises(SchemaError, match="rhythm, timbre"):
        record.view("mood")
    bad = record.vectors.copy()
    bad[2] = np.nan
    with pytest.raises(SchemaError, match="track 2"):
        Embeddings(**{**vars(record), "vectors": bad})
