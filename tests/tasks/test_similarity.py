"""Similarity as a task: losses against loops, relations by label and file, steps that hold something to
learn, the head, and a run from audio to neighbours."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from beatmeter.cli import cli
from beatmeter.datasets.synthetic_works import WorkPlan, synthesise_works
from beatmeter.errors import BeatmeterError, ConfigError, DataError
from beatmeter.evaluation.records import open_records
from beatmeter.features.backbones import load_backbone
from beatmeter.features.pooling import feature_spec
from beatmeter.runtime.config import change
from beatmeter.schema import Embeddings, Track, as_embeddings
from beatmeter.serving.embedding import embed_tracks, open_model
from beatmeter.settings import FeatureConfig, HeadConfig, RunConfig, TaskConfig
from beatmeter.tasks import open_task
from beatmeter.tasks.similarity.head import EmbeddingHead
from beatmeter.tasks.similarity.losses import LOSSES
from beatmeter.tasks.similarity.relations import ByLabel, Given, steps_by_label, steps_by_rows

CPU = torch.device("cpu")


def unit(n: int = 9, dim: int = 5, seed: int = 0) -> Tensor:
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(z, dim=1)


def supcon(s: np.ndarray, r: np.ndarray, c: TaskConfig) -> tuple[float, int]:
    total, n = 0.0, 0
    for i in range(len(s)):
        positives = [j for j in range(len(s)) if r[i, j] > 0]
        known = [j for j in range(len(s)) if r[i, j]]
        if positives:
            below = sum(math.exp(s[i, a] / c.temperature) for a in known)
            logs = [math.log(math.exp(s[i, p] / c.temperature) / below) for p in positives]
            total, n = total - sum(logs) / len(logs), n + 1
    return total, n


def multi_similarity(s: np.ndarray, r: np.ndarray, c: TaskConfig) -> tuple[float, int]:
    total, n = 0.0, 0
    for i in range(len(s)):
        near = [s[i, j] for j in range(len(s)) if r[i, j] > 0]
        far = [s[i, j] for j in range(len(s)) if r[i, j] < 0]
        if not near:
            continue
        n += 1
        hard_near = [x for x in near if far and x - c.margin < max(far)]
        hard_far = [x for x in far if x + c.margin > min(near)]
        total += math.log(1 + sum(math.exp(-2 * (x - 0.5)) for x in hard_near)) / 2
        total += math.log(1 + sum(math.exp(50 * (x - 0.5)) for x in hard_far)) / 50
    return total, n


def triplet(s: np.ndarray, r: np.ndarray, c: TaskConfig) -> tuple[float, int]:
    total, n = 0.0, 0
    for i in range(len(s)):
        far = [s[i, j] for j in range(len(s)) if r[i, j] < 0]
        for p in (j for j in range(len(s)) if r[i, j] > 0):
            if far:
                semi = [x for x in far if x < s[i, p]]
                total += max(0.0, (max(semi) if semi else min(far)) - s[i, p] + c.margin)
                n += 1
    return total, n


LOOPS = {"supcon": supcon, "multi_similarity": multi_similarity, "triplet": triplet}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name: str) -> None:
    labels = ByLabel.of_names(["a", "a", "b", "b", "b", "c", "", "a", "c"])
    relation, known = labels.of(torch.arange(9), {})
    unknown = relation.clone()
    unknown[0, 3:6] = 0  # triplets say nothing of most pairs
    for r in (relation, unknown):
        for seed in range(3):
            z = unit(seed=seed)
            total, count = LOSSES[name](z, r, TaskConfig())
            right, n = LOOPS[name]((z @ z.T).numpy(), r.numpy(), TaskConfig())
            assert float(total) == pytest.approx(right, rel=1e-9)
            assert float(count) == n
    assert not known.diagonal().any()
    nothing, count = LOSSES[name](unit(), -torch.ones(9, 9), TaskConfig())
    assert (float(nothing), float(count)) == (0.0, 0.0), (
        "a step without a positive teaches nothing, and says so"
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_brings_versions_together(name: str) -> None:
    relation, _ = ByLabel.of_names(["a", "a", "b", "b"] * 2).of(torch.arange(8), {})
    z = unit(8).requires_grad_()
    gaps = []
    for _ in range(60):
        v = torch.nn.functional.normalize(z, dim=1)
        s = (v @ v.T).detach()
        gaps.append(float(s[relation > 0].mean() - s[relation < 0].mean()))
        (grad,) = torch.autograd.grad(LOSSES[name](v, relation, TaskConfig())[0], z)
        z = (z - 0.02 * grad).detach().requires_grad_()
    assert gaps[-1] > gaps[0] + 0.2


def test_steps_hold_a_positive_and_a_negative_and_take_every_track_once() -> None:
    rng = np.random.default_rng(0)
    labels = [f"w{i}" for i in rng.integers(0, 30, 121)] + ["alone"]
    for per, size in ((2, 8), (3, 7), (4, 64)):
        steps = steps_by_label(labels, rng, size, per)
        assert sorted(np.concatenate(steps).tolist()) == list(range(122))
        for step in steps:
            there = [labels[i] for i in step]
            assert 1 < len(set(there)) < len(there)
        assert np.median([len(s) for s in steps]) >= min(size, 122) - per
    for bad in (["a", "b", "c"], ["a", "a"]):
        with pytest.raises(DataError, match="no two belong together, or all do"):
            steps_by_label(bad, rng, 8, 2)


def given(folder: Path, text: str) -> Given:
    (folder / "pairs.csv").write_text(text)
    return Given.read(folder / "pairs.csv")


def test_pairs_and_triplets_say_what_is_known(tmp_path: Path) -> None:
    ids, groups = ["x", "y", "z", "w"], ["1", "1", "2", "3"]
    pairs = given(tmp_path, "a,b\nx,z\nx,elsewhere\n")
    assert pairs.inside(ids) == [(0, 2)]
    relation, _ = pairs.relations(ids, groups).of(torch.arange(4), {})
    assert relation.tolist() == [[0, 0, 1, -1], [0, 0, -1, -1], [1, -1, 0, -1], [-1, -1, -1, 0]]
    triplets = given(tmp_path, "anchor,positive,negative\nx,z,w\ny,z,w\n")
    relation, mask = triplets.relations(ids, groups).of(torch.tensor([3, 0, 2]), {})
    assert relation.tolist() == [[0, 0, 0], [-1, 0, 1], [0, 0, 0]]
    assert mask.tolist() == (relation != 0).tolist()
    steps = steps_by_rows([(0, 1), (2, 3), (4, 5), (0, 5)], np.random.default_rng(0), 4)
    for row in [(0, 1), (2, 3), (4, 5), (0, 5)]:
        assert any(set(row) <= set(step.tolist()) for step in steps)
    opposite = given(tmp_path, "anchor,positive,negative\nx,z,w\nx,w,z\n")
    for text, match in (
        ("a,b\nx,x\n", "pairs.csv:2: 'x' is paired with itself"),
        ("a,b\nx,\n", "every cell needs the id"),
        ("first,second\nx,y\n", "neither pairs nor triplets"),
    ):
        with pytest.raises(DataError, match=match):
            given(tmp_path, text)
    with pytest.raises(DataError, match="is a positive and a negative of 'x'"):
        opposite.relations(ids, groups)


def config(**task: Any) -> RunConfig:
    return change(RunConfig(), {"task": {"name": "similarity", **task}})


def tracks(*labels: str) -> list[Track]:
    return [Track(f"t{i}", Path("x"), extra={"work": label}) for i, label in enumerate(labels)]


def test_two_crops_of_a_track_belong_together_and_validation_goes_by_the_column() -> None:
    task = open_task(config(pairs="crops"))
    train = tracks("a", "", "b")
    examples = task.examples(train)
    relation, _ = task.truth(examples, CPU).of(torch.arange(6), {})
    assert torch.equal(relation > 0, torch.eye(6).roll(3, dims=1) > 0)
    val, _ = task.truth(tracks("a", "a", "b"), CPU).of(torch.arange(3), {})
    assert val.tolist() == [[0, 1, -1], [1, 0, -1], [-1, -1, 0]]
    for step in task.sampler(examples, np.random.default_rng(0), 4):
        assert len({i % 3 for i in step}) < len(step)
    with pytest.raises(ConfigError, match=r"two crops of a track, and augment\.crop is 0"):
        open_task(change(config(pairs="crops"), {"augment": {"crop": 0.0}}))
    with pytest.raises(ConfigError, match="no room for two labels with 4 tracks"):
        open_task(change(config(per_label=4), {"training": {"batch": 4, "accumulation": 1}}))
    with pytest.raises(DataError, match="no two belong together"):
        open_task(config()).settled(tracks("a", "b", "c"))


def test_the_head_joins_layers_in_four_ways(tmp_path: Path) -> None:
    backbone = load_backbone("embedded")
    spec = feature_spec(
        backbone,
        FeatureConfig(backbone="embedded", layers="2,4", poolings=("stats", "f=frames@25")),
        "float32",
    )
    x = torch.randn(3, 2, *spec["stats"].shape, generator=torch.Generator().manual_seed(1))
    seen = {}
    for mix in ("softmax", "mean", "one", "concat"):
        for form in ("affine", "mlp"):
            torch.manual_seed(0)
            head = EmbeddingHead(spec, change(HeadConfig(), {"mix": mix, "map": form}), 7).eval()
            z = head({"stats": x})
            assert torch.allclose(z.norm(dim=1), torch.ones(3), atol=1e-5)
            seen[mix, form] = z
            other = head({"stats": torch.stack([x[:, 0].flip(-1), x[:, 1]], dim=1)})
            assert torch.allclose(other, z) == (mix == "one"), "one layer hears no other"
    assert torch.allclose(seen["softmax", "affine"], seen["mean", "affine"], atol=1e-6), (
        "uniform at the start"
    )
    with pytest.raises(ConfigError, match=r"head.layer = 3 is none of the layers of 'stats'"):
        EmbeddingHead(spec, change(HeadConfig(), {"mix": "one", "layer": 3}), 7)
    with pytest.raises(ConfigError, match="'f' \\(frames\\) is rows over time"):
        EmbeddingHead(spec, change(HeadConfig(), {"poolings": ("f",)}), 7)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("similar") / "works"
    synthesise_works(folder, 10, 2, WorkPlan(seconds=5.0, format="wav", val=0.3, test=0.3))
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    if isinstance(result.exception, BeatmeterError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def test_from_works_to_a_model_a_report_and_neighbours(works: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sets = ("task.name=similarity", "task.dim=12", "features.backbone=spectral", "features.poolings=harmony")
    more = ("head.poolings=harmony", "training.epochs=2", "training.batch=4", "training.accumulation=1")
    more += ("task.factors=manner,tempo_ratio~0.04",)
    options = [part for s in (*sets, *more) for part in ("--set", s)]
    status, text = run("train", "--frozen", works, "--cache", tmp_path / "c", "--out", out, *options)
    assert status == 0, text
    assert "mAP" in text
    assert "shuffled" in text
    line = json.loads((out / "epochs.jsonl").read_text().splitlines()[-1])["val"]
    assert {"map", "hit_at_1", "mean_cosine", "hubness", "loss"} <= set(line)
    record = as_embeddings(open_records(out, "test"))
    assert record.vectors.shape == (6, 12)
    told = json.loads((out / "evaluation" / "test.json").read_text())
    assert told["record"] == "embeddings"
    assert [m["name"] for m in told["metrics"]] == ["map", "map_at_r", "hit_at_1", "hit_at_10", "mr1"]
    assert all(m["nulls"]["shuffled"] >= 0 for m in told["metrics"])
    status, text = run("report", out, "--text")
    assert (status, "mean cosine of two items" in text) == (0, True)
    assert "selectivity: area under the curve" in text
    found = next(f for f in told["findings"] if f["name"] == "selectivity")["values"]["areas"]["vectors"]
    assert 0 <= found["manner"]["value"] <= 1
    assert "tempo_ratio" in found
    status, text = run("report", out, "--out", tmp_path / "r.html")
    assert (status, "shuffled" in (tmp_path / "r.html").read_text()) == (0, True)
    status, text = run("evaluate", out, "--split", "test", "--cache", tmp_path / "c")
    assert status == 0, text

    files = [works / "audio" / f"{name}.wav" for name in ("000000-0", "000000-1", "000003-0")]
    model = open_model(str(out))
    both, failed = embed_tracks([Track(f.stem, f) for f in files], model)
    assert not failed
    alone, _ = embed_tracks([Track("x", files[1])], open_model(str(out)), jobs=2)
    assert alone.vectors[0].tobytes() == both.vectors[1].tobytes()
    stored = {name.removeprefix("work-"): v for name, v in zip(record.ids, record.vectors, strict=True)}
    for f, v in zip(files, both.vectors, strict=True):
        work, version = f.stem.split("-")
        if (name := f"{int(work)}-{version}") in stored:
            assert np.abs(stored[name] - v).max() < 1e-4, "a file has the vector that evaluation saw"
    status, text = run("predict", out, files[0], "--json")
    assert np.allclose(json.loads(text)["vector"], both.vectors[0], atol=1e-5)
    status, text = run("embed", out, works, "--label", "work", "--out", tmp_path / "e.npz")
    assert (status, "20 vectors of 12 numbers" in text) == (0, True)
    status, text = run("search", tmp_path / "e.npz", files[0], "--model", out, "--rerank", "align", "--json")
    assert (status, len(json.loads(text)["hits"])) == (0, 10)
    status, text = run("compare", out, out / "predictions" / "test.npz", "--separate")
    assert status == 0, text


def test_a_run_of_another_task_and_data_without_works_are_refused(works: Path, tmp_path: Path) -> None:
    from beatmeter.serving.models import SHIPPED

    with pytest.raises(ConfigError, match="it gives no vectors"):
        open_model(str(SHIPPED / "spectral-lag"))
    with pytest.raises(DataError, match=r"task.factors = 'wrok' is no column"):
        open_task(config(factors=("wrok",))).open(change(config(), {"data": {"path": str(works)}}).data)
    with pytest.raises(ConfigError, match=r"'key~2' names no factor"):
        open_task(config(factors=("key~2",))).open(change(config(), {"data": {"path": str(works)}}).data)
    with pytest.raises(DataError, match=r"task.column = 'wrok' is no column"):
        open_task(config(column="wrok")).open(change(config(), {"data": {"path": str(works)}}).data)


def test_labels_may_be_missing_where_nothing_is_judged() -> None:
    task = open_task(config())
    found = task.decode(np.eye(128, dtype=np.float32)[:3], tracks("a", "", "a"))
    assert isinstance(found, Embeddings)
    figures = task.figures(found)
    assert figures["map"] == pytest.approx(0.75)  # one of two, and one of one: ties keep their order
    with pytest.raises(BeatmeterError, match="no two items have the same label"):
        task.figures(task.decode(np.eye(128, dtype=np.float32)[:2], tracks("a", "b")))
