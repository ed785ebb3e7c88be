"""Probes: closed forms against scikit-learn, folds of whole groups, the best layer named when there is one,
null controls."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.errors import BeatmeterError, ConfigError, DataError
from beatmeter.evaluation.records import read_records
from beatmeter.experiments.probes import Subject, closed, probe, probe_text
from beatmeter.experiments.probes.best import best_set
from beatmeter.schema import ValuePredictions


def grouped(n: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(f"t{i}" for i in range(n)), tuple(f"w{i // 3}" for i in range(n))


def subject(n: int, seed: int = 0, **columns: np.ndarray) -> Subject:
    ids, groups = grouped(n)
    return Subject(
        ids, groups, tuple(columns), ("",) * len(columns), np.stack(list(columns.values()), axis=1), {}
    )


@pytest.mark.parametrize("dim", [12, 150])
def test_ridge_is_that_of_scikit_learn(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import Ridge

    monkeypatch.setattr(closed, "STRENGTHS", (0.3,))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, dim)).astype("f4") * 7 + 3, rng.normal(size=(90, 2))
    fold = closed.group_folds(np.arange(90) // 3, 0)
    found, _ = closed.ridge_out_of_fold(closed.columns_of(x), y, fold)
    z = (x - x.mean(0)) / x.std(0)
    for f in range(5):
        train = fold != f
        right = Ridge(alpha=0.3 * train.sum()).fit(z[train], y[train]).predict(z[~train])
        np.testing.assert_allclose(found[~train], right, atol=1e-5)


def test_the_strength_is_chosen_without_the_outer_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the targets of a fold changes neither the strength nor the answers for that fold."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 20))
    y = x[:, :1] + rng.normal(size=(120, 1))
    fold = closed.group_folds(np.arange(120) // 3, 0)
    before, strengths = closed.ridge_out_of_fold(x, y, fold)
    other = y.copy()
    other[fold == 2] += 100 * rng.normal(size=(int((fold == 2).sum()), 1))
    after, again = closed.ridge_out_of_fold(x, other, fold)
    np.testing.assert_allclose(after[fold == 2], before[fold == 2])
    assert again[2] == strengths[2]
    classes = np.eye(3)[rng.integers(0, 3, 120)]
    shares = closed.lda_out_of_fold(x, classes, fold)
    turned = classes.copy()
    turned[fold == 2] = np.roll(turned[fold == 2], 1, axis=1)
    np.testing.assert_allclose(closed.lda_out_of_fold(x, turned, fold)[fold == 2], shares[fold == 2])


def test_folds_hold_whole_groups() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 300)
    folds = [closed.group_folds(groups, seed) for seed in range(3)]
    for fold in folds:
        assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
        assert np.bincount(fold).max() - np.bincount(fold).min() <= 12
    assert (folds[0] != folds[1]).any()


def test_lda_tells_classes_apart_and_knows_missing_ones() -> None:
    rng = np.random.default_rng(2)
    number = rng.integers(0, 4, 200)
    x = rng.normal(size=(200, 10)) @ rng.normal(size=(10, 10)) + 3 * np.eye(4, 10)[number] @ rng.normal(
        size=(10, 10)
    )
    fold = closed.group_folds(np.arange(200) // 2, 0)
    shares = closed.lda_out_of_fold(x, np.eye(5)[number], fold)  # the fifth class never occurs
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[:, 4] == 0).all()
    assert (shares.argmax(axis=1) == number).mean() > 0.8


def test_cka_is_one_up_to_rotation_and_factor() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 8))
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    cka = closed.linear_cka([x, 7 * x @ turn + 2, rng.normal(size=(50, 8))])
    assert cka[0, 1] == pytest.approx(1, abs=1e-4)
    assert cka[0, 2] < 0.5


def layers(n: int, seed: int, better: int | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """13 layers with norms of 1 to 20 that all know the target alike, but for the one that knows it
    better."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    made = {}
    for k in range(13):
        x = rng.normal(size=(n, 16))
        x[:, 0] = y + (0.7 if k == better else 1.0) * rng.normal(size=n)
        made[f"layer {k}"] = ((1 + 19 * k / 12) * x).astype("f4")
    return y, made


def test_a_better_layer_is_named_and_equal_ones_are_not() -> None:
    winners = 0
    for seed in range(3):
        y, made = layers(420, seed, better=4)
        found = probe(subject(420, y=y), made, {}, seeds=1).rows[0]
        assert (found.best, found.beside) == ("layer 4", ("layer 4",))
        y, made = layers(420, seed, better=None)
        winners += len(probe(subject(420, y=y), made, {}, seeds=1).rows[0].beside) == 1
    assert winners == 0
    rng = np.random.default_rng(0)
    names = [f"g{i // 3}" for i in range(300)]
    alone = [len(best_set(rng.normal(size=(300, 13)) ** 2, names, s)[1]) == 1 for s in range(60)]
    assert np.mean(alone) <= 0.05


def test_controls_stand_in_every_row() -> None:
    n = 450
    rng = np.random.default_rng(5)
    y = rng.normal(size=n)
    x = rng.normal(size=(n, 30)).astype("f4")
    x[:, 0] = y + 0.5 * rng.normal(size=n)
    gappy = np.where(rng.random(n) < 0.3, np.nan, y * 3 + 100)
    s = subject(n, known=y, gappy=gappy, null_random=rng.normal(size=n), constant=np.full(n, 2.0))
    s = Subject(
        *(getattr(s, f) for f in ("ids", "groups", "names", "units", "values")),
        {"sign": np.where(y > 0, "up", "").tolist()},
    )
    s = Subject(
        *(getattr(s, f) for f in ("ids", "groups", "names", "units", "values")),
        {"sign": np.where(y > 0, "up", "down").tolist()},
    )
    found = probe(
        s, {"layer 1": x, "layer 2": x[:, ::-1]}, {"mel": rng.normal(size=(n, 8)).astype("f4")}, seeds=2
    )
    by = {row.target: row for row in found.rows}
    assert list(by) == ["known", "gappy", "null_random", "sign"]
    assert "constant" in found.refused["constant"]
    assert by["known"].cells["layer 1"].score.value == pytest.approx(0.8, abs=0.06)
    assert by["gappy"].items == int((~np.isnan(gappy)).sum())
    assert abs(by["gappy"].cells["layer 1"].score.value - by["known"].cells["layer 1"].score.value) < 0.06
    assert by["sign"].cells["layer 1"].score.value > 0.75 > by["sign"].chance
    for row in found.rows:
        for cell in row.cells.values():
            null = cell.shuffled - (row.chance if row.kind == "accuracy" else 0)
            assert abs(null) <= (0.03 if row.kind == "R2" else 0.08)
    assert abs(by["null_random"].cells["layer 1"].score.value) <= 0.03
    assert by["known"].against["mel"].p < 0.01
    assert by["known"].against["mel"].value > 0.3
    layers = {"layer 1": x[:, :8], "layer 2": x[:, 8:16]}
    alone, beside = (probe(s, layers, {}, seeds=1, jobs=jobs).rows for jobs in (1, 2))
    for one, other in zip(alone, beside, strict=True):
        assert {n: c.score for n, c in one.cells.items()} == {n: c.score for n, c in other.cells.items()}
    text = probe_text(found)
    assert "left out: constant: it is 2 for all items: a constant" in text
    with pytest.raises(DataError, match="nothing can be probed: y: known of 6 items"):
        probe(subject(6, y=np.arange(6.0)), {"layer 1": x[:6]}, {})


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    if isinstance(result.exception, BeatmeterError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_music_to_a_page(clips: Path, tmp_path: Path) -> None:
    run(
        "extract",
        clips,
        "--set",
        "features.backbone=spectral",
        "--set",
        "features.poolings=stats",
        "--cache",
        tmp_path / "c",
    )
    table = tmp_path / "t.csv"
    run("targets", clips, "--out", table)
    store = next(p for p in (tmp_path / "c").iterdir() if p.is_dir() and p.name.startswith("spectral"))
    arguments = ("probe", clips, "--features", store, "--out", tmp_path / "p", "--seeds", 1)
    text = run(*arguments, "--targets", f"{table},class")
    assert re.search(r"^centroid +R2 +layer \d+ ", text, re.M)
    assert re.search(r"^class +accuracy +layer \d+ ", text, re.M)
    said = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert said["controls"] == ["mel"]
    page = (tmp_path / "p" / "probe.html").read_text()
    assert "centroid" in page
    assert "<svg" in page
    predictions = read_records(next((tmp_path / "p" / "predictions").glob("layer-*.csv")))
    assert isinstance(predictions, ValuePredictions)
    assert "centroid" in predictions.names
    with pytest.raises(DataError, match="--targets = 'metre' is no column"):
        run(*arguments, "--targets", "metre")
    with pytest.raises(DataError, match="no pooling 'lag'"):
        run(*arguments, "--targets", "class", "--pooling", "lag")
    with pytest.raises(ConfigError, match="names no store"):
        run(*arguments, "--targets", "class", "--control", "mel")
