"""Audits find the labels and the copies that were planted, tell a reviewer nothing, and take the decisions
back."""

from __future__ import annotations

import csv
import html.parser
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner, Result
from counting import Counting
from meterfolders import encode, music

from beatmeter.audio.chunking import Layout, rows
from beatmeter.audio.identity import track_key
from beatmeter.cli.data import data
from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.corrections import ORIGINAL
from beatmeter.errors import ConfigError, DataError, StoreError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.experiments.audit import Audit, Review, audit, copies, write_audit
from beatmeter.experiments.audit.copies import find_copies, neighbours, threshold
from beatmeter.experiments.audit.kernels import coordinates, kernel_of, rows_of, scale_magnitudes
from beatmeter.experiments.audit.review import link
from beatmeter.experiments.audit.suspects import require_cleanlab
from beatmeter.schema import ChunkSpec, Features, FeatureSpec, Pooled, PoolingSpec, Track
from beatmeter.settings import DataConfig
from beatmeter.store import Store

CLASSES = ("3", "4", "5", "7", "9", "11")
STATS = PoolingSpec(
    "stats", "stats", "chunk", (1, 2), ("pool", "dim"), (2, 6), {"statistics": ["mean", "max"]}
)
LAG = PoolingSpec("lag", "lag", "window", (1, 2), ("channel", "lag"), (3, 48), {"window": 3})
CHUNK = ChunkSpec(sample_rate=1000, length=5000, hop=5000, tail_min=500, minimum=1000)


def spec(*poolings: PoolingSpec) -> FeatureSpec:
    return FeatureSpec(
        "tiny", "r", "0" * 64, 2, 6, 20, 25, True, CHUNK, poolings or (STATS, LAG), store_dtype="float32"
    )


def features(of: FeatureSpec, meter: str, rng: np.random.Generator, like: Features | None = None) -> Features:
    """Of a clip in this meter: peaks along the lag axis at a distance that tells the meter, at a place that
    tells nothing (its tempo), on a texture of its own. `like` another clip: the same up to a little noise."""
    samples = 15_000
    layout, shift, texture = Layout.of(samples, of), int(rng.integers(0, 12)), rng.normal(size=(3, 48))
    pooled = {}
    for p in of.poolings:
        times, frames = rows(layout, p)
        if like is not None:
            values = like.pooled[p.name].values + 0.02 * rng.normal(size=(len(times), *p.row_shape))
        else:
            values = 0.5 * rng.normal(size=(len(times), *p.row_shape)) + rng.normal(size=p.row_shape)
            if p.kind == "lag":
                values = 0.1 * values + 0.4 * texture
                values[..., shift] += 3
                values[..., shift + 2 * int(meter) + 1] += 3
        pooled[p.name] = Pooled(values.astype("f4"), times, frames)
    return Features(of, samples, pooled)


@dataclass(frozen=True)
class Made:
    """A dataset with features: the truth by id, what was mislabelled, and which clip sounds like which."""

    path: Path
    store: Store
    truth: Mapping[str, str]
    wrong: frozenset[str]
    copies: Mapping[str, str]
    features: Mapping[str, Features]

    def open(self) -> Dataset:
        return open_dataset(self.path, DataConfig(), CLASSES, labelled=False)

    def keys(self) -> dict[str, str]:
        return {t.id: track_key(t.path) for t in self.open().tracks}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """96 songs of 2 clips in four classes, 8 songs mislabelled as wholes, 3 clips of other songs in another
    split."""
    folder = tmp_path_factory.mktemp("audited")
    rng = np.random.default_rng(3)
    of = spec()
    store = Store.create(folder / "cache" / "store", of)
    truth: dict[str, str] = {}
    found: dict[str, Features] = {}
    wrong: set[str] = set()
    copies: dict[str, str] = {}
    lines = ["id,file,class,group,split,source"]
    items = []
    plan = [(f"song{s}", f"s{s}c{c}", "3457"[s % 4]) for s in range(96) for c in range(2)]
    plan += [(f"other{n}", f"copy{n}", "3457"[n % 4]) for n in range(3)]
    for group, name, meter in plan:
        original = f"s{int(name[4:])}c0" if name.startswith("copy") else None
        if original:
            copies[name] = original
        number = int(re.sub(r"\D.*", "", group.removeprefix("song").removeprefix("other")) or 0)
        label = meter
        if group.startswith("song") and number % 12 == 11:
            label = "3457"[("3457".index(meter) + 1 + number % 3) % 4]
            wrong.add(name)
        split = "train" if original else ("test", "train", "train", "val", "train")[number % 5]
        if original and number == 1:
            split = "test"
        path = folder / "audio" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        lines.append(f"{name},audio/{name}.wav,{label},{group},{split},")
        truth[name] = meter
        found[name] = features(of, meter, rng, found[original] if original else None)
        items.append((track_key(path), found[name]))
    store.commit(items)
    (folder / "manifest.csv").write_text("\n".join([*lines, ""]))
    return Made(folder, store, truth, frozenset(wrong), copies, found)


@pytest.fixture(scope="module")
def found(made: Made) -> Audit:
    told = Counting()
    result = audit(made.open(), CLASSES, made.store.snapshot(), made.keys(), progress=told)
    assert told.done == told.total != {}, "the bar ends where the work ends"
    return result


# how alike tracks are


def test_kernels_are_those_of_all_columns_at_once(made: Made) -> None:
    names = sorted(made.features)[:20]
    keys = made.keys()
    with rows_of(made.store.snapshot(), [keys[n] for n in names]) as views:
        got = {name: kernel_of(rows) for name, rows in views.items()}
    stats = np.stack(
        [
            np.stack(
                [
                    made.features[n].pooled["stats"].values[:, :, 0].mean(0),
                    made.features[n].pooled["stats"].values[:, :, 1].max(0),
                ],
                1,
            )
            for n in names
        ]
    )
    lag = np.stack([made.features[n].pooled["lag"].values.mean(0) for n in names])
    for name, x in {"stats": stats, "lag": lag, "tempo-free": scale_magnitudes(lag)}.items():
        flat = x.reshape(len(names), -1).astype(np.float64)
        z = (flat - flat.mean(0)) / flat.std(0)
        np.testing.assert_allclose(got[name], z @ z.T / z.shape[1], atol=2e-5)
        x = coordinates(got[name])
        np.testing.assert_allclose(x @ x.T, got[name], atol=1e-4)


def test_scale_magnitudes_do_not_see_the_tempo() -> None:
    pattern = np.zeros((4, 60), np.float32)
    for row, shift in zip(pattern, (0, 5, 11, 30), strict=True):
        row[shift : shift + 20] = [3, 1, 0, 0, 2, -1, 0, 0, 0, 1, 0, 0, 0, -2, 0, 1, 0, 0, 0, -5]  # sums to 0
    magnitudes = scale_magnitudes(pattern)
    np.testing.assert_allclose(magnitudes, np.broadcast_to(magnitudes[0], magnitudes.shape), atol=1e-3)


def test_frames_alone_cannot_be_audited(made: Made, tmp_path: Path) -> None:
    of = spec(PoolingSpec("frames", "frames", "frame", (1,), ("dim",), (6,), {"step": 25}))
    store = Store.create(tmp_path / "s", of)
    times, frames = rows(Layout.of(15_000, of), of["frames"])
    key = next(iter(made.keys().values()))
    store.commit(
        [
            (
                key,
                Features(
                    of, 15_000, {"frames": Pooled(np.zeros((len(times), 1, 6), np.float32), times, frames)}
                ),
            )
        ]
    )
    with pytest.raises(StoreError, match=r"frames only\. Extract with --set features\.poolings=stats,lag"):
        audit(made.open(), CLASSES, store.snapshot(), made.keys())


# suspicious labels


def test_the_mislabelled_songs_are_found(made: Made, found: Audit) -> None:
    s = found.suspects
    assert s.view == "tempo-free"
    assert s.accuracy.low > 0.6 > s.majority
    assert not found.weak
    ranked = [found.labelled[i].id for i in s.ranked]
    assert (
        len(made.wrong & set(ranked)) / len(made.wrong) >= 0.8
    )  # each song wrong in both clips: only other songs can tell
    assert len(made.wrong & set(ranked[: len(made.wrong)])) / len(made.wrong) >= 0.6
    assert len(ranked) < 40
    assert s.unlearned == ("9", "11")
    assert (np.diff(s.quality[s.ranked]) >= 0).all()
    assert (s.predictions.scores[:, 4:] == 0).all()


def test_what_a_head_cannot_learn_is_said(made: Made) -> None:
    rng = np.random.default_rng(0)
    dataset = made.open()
    shuffled = rng.permutation([t.primary for t in dataset.tracks]).tolist()
    tracks = tuple(
        Track(t.id, t.path, {c: 1.0}, c, t.group) for t, c in zip(dataset.tracks, shuffled, strict=True)
    )
    nonsense = Dataset(tracks, (), "nonsense", "manifest", "")
    assert audit(nonsense, CLASSES, made.store.snapshot(), made.keys()).weak
    one = Dataset(tuple(t for t in tracks if t.primary == "3"), (), "one", "manifest", "")
    with pytest.raises(DataError, match="1 classes have labels in 2 groups or more"):
        audit(one, CLASSES, made.store.snapshot(), made.keys())


def test_a_copy_does_not_vouch_for_a_label(made: Made) -> None:
    """A wrong clip and its copy in another group, wrong as well, stay suspicious both: they are one group for
    the head."""
    dataset = made.open()
    tracks = tuple(
        Track(t.id, t.path, {"7": 1.0}, "7", t.group, split=t.split)
        if t.id in ("s0c0", "s0c1", "copy0")
        else t
        for t in dataset.tracks
    )
    changed = audit(Dataset(tracks, (), "d", "manifest", ""), CLASSES, made.store.snapshot(), made.keys())
    assert {"s0c0", "copy0"} <= {changed.labelled[i].id for i in changed.suspects.ranked}
    groups = dict(zip(changed.suspects.predictions.ids, changed.suspects.predictions.groups, strict=True))
    assert groups["s0c0"] == groups["copy0"] == groups["s0c1"]


# copies


def test_the_copies_are_found_and_nothing_else(made: Made, found: Audit) -> None:
    names = [t.id for t in found.dataset.tracks]
    assert {(names[p.first], names[p.second]) for p in found.pairs} == {
        (original, copy) for copy, original in made.copies.items()
    }
    assert all(p.cosine > max(found.limits.values()) for p in found.pairs)
    order = [names[p.second] for p in found.pairs]
    assert order[-1] == "copy2"  # both in train; the others are across splits and come first
    assert found.summary()["copies"]["across splits"] == 2


def test_without_copies_about_one_pair_is_expected() -> None:
    false = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(80, 20)) @ rng.normal(size=(20, 200)) + 0.5 * rng.normal(
            size=(80, 200)
        )  # few directions: high cosines
        z = (x - x.mean(0)) / x.std(0)
        tracks = [Track(str(i), Path("x"), group=str(i // 2)) for i in range(80)]
        false.append(len(find_copies({"stats": z.astype("f4")}, tracks)[0]))
    assert 0.3 < np.mean(false) < 1.5


def test_copies_do_not_raise_the_threshold() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 60))
    names = [str(i) for i in range(200)]
    before = threshold(neighbours(x.astype("f4"), names)[0])
    x[:30] = x[100:130] + 0.05 * rng.normal(size=(30, 60))  # 60 of 200 tracks are copies
    after = threshold(neighbours(x.astype("f4"), names)[0])
    assert before < 0.8
    assert after < 0.98


def test_tracks_of_one_group_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 200))
    x[1] = x[0]
    rows = x.astype("f4")
    tracks = [Track(str(i), Path("x"), group="song" if i < 2 else str(i)) for i in range(60)]
    assert (0, 1) not in {(p.first, p.second) for p in find_copies({"lag": rows}, tracks)[0]}
    apart = [Track(t.id, t.path, group=t.id) for t in tracks]
    assert find_copies({"lag": rows}, apart)[0][0].cosine == pytest.approx(1)
    assert (0, 1) in {(p.first, p.second) for p in find_copies({"lag": rows}, apart)[0]}
    assert find_copies({"lag": rows[:29]}, apart[:29]) == ([], {})
    with pytest.raises(DataError, match="29 tracks in all are too few"):
        threshold(neighbours(rows[:29], [t.group for t in tracks[:29]])[0])
    with pytest.raises(DataError, match="60 tracks in one group"):
        threshold(neighbours(rows, ["one"] * 60)[0])


def test_squares_find_what_the_whole_matrix_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines a square at a time, in any size, against those of all pairs at once."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(310, 12)) @ rng.normal(size=(12, 40))).astype("f4")
    x[100:110] = x[200:210] + 0.02 * rng.normal(size=(10, 40)).astype("f4")
    tracks = [Track(str(i), Path("x"), group=f"g{i // 3}") for i in range(310)]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.clip(unit @ unit.T, -1, 1)
    number = np.arange(310) // 3
    cosine[number[:, None] == number] = -np.inf
    limit = threshold(cosine.max(axis=1))
    right = {(i, j) for i, j in np.argwhere(cosine > limit).tolist() if i < j}
    assert len(right) >= 10
    for block in (7, 64, 4096):
        monkeypatch.setattr(copies, "BLOCK", block)
        pairs, limits = find_copies({"view": x}, tracks)
        assert limits["view"] == pytest.approx(limit, abs=1e-6)
        assert {(p.first, p.second) for p in pairs} == right


# the review


class Page(html.parser.HTMLParser):
    """What a page holds: tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_review_is_blind_and_complete(made: Made, found: Audit, tmp_path: Path) -> None:
    out = tmp_path / "review"
    review = found.review(top=10)
    write_audit(found, review, out)
    lines = table(out / "review.csv")
    assert list(lines[0]) == ["id", "label", "new label", "comment"]
    assert len(lines) == len({line["id"] for line in lines}) == 10 + len(review.copies)
    assert {item.track.id for item in review.items if item.twin} == {"copy0", "s1c0", "copy2"}
    assert all(line["new label"] == "" for line in lines)
    text = (out / "review.html").read_text()
    assert "guess" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    page = Page(text)
    assert [a["data-id"] for a in page.of("article")] == [line["id"] for line in lines]
    sources = [a["src"] for a in page.of("audio")]
    assert len(sources) == len(lines) + len(made.copies)
    assert all((out / unquote(str(source))).resolve().is_file() for source in sources)
    summary = json.loads((out / "audit.json").read_text())
    assert summary["flagged"] == int(found.suspects.flagged.sum())
    assert not re.search("guess|quality", (out / "audit.json").read_text())
    assert {(r["id"], r["twin"], r["across splits"]) for r in table(out / "copies.csv")} == {
        ("s0c0", "copy0", "yes"),
        ("s1c0", "copy1", "yes"),
        ("s2c0", "copy2", "no"),
    }
    predictions = read_predictions(out / "guesses" / "predictions.csv")
    assert predictions.split == "out-of-fold"
    assert {r["id"] for r in table(out / "guesses" / "labels.csv") if r["listed"] == "suspect"} == {
        i.track.id for i in review.labels
    }
    with pytest.raises(DataError, match="holds a review already"):
        write_audit(found, review, out)


def test_the_track_that_gives_way_is_the_one_to_decide_on(found: Audit) -> None:
    said = {item.track.id: item.reason for item in found.review(top=1).copies}
    assert set(said) == {"copy0", "s1c0", "copy2"}
    assert said["copy0"].startswith("sounds like s0c0 (test, labelled 3; cosine 0.99")
    assert said["s1c0"].startswith("sounds like copy1 (test, labelled 4; ")


def test_guesses_are_shown_on_request_and_controls_are_mixed_in(found: Audit, tmp_path: Path) -> None:
    review = found.review(top=10, controls=5, show_guess=True)
    write_audit(found, review, tmp_path / "r")
    lines = {line["id"]: line for line in table(tmp_path / "r" / "review.csv")}
    told = {r["id"]: r for r in table(tmp_path / "r" / "guesses" / "labels.csv")}
    controls = [name for name, r in told.items() if r["listed"] == "control"]
    assert len(controls) == 5
    assert all(told[name]["flagged"] == "no" for name in controls)
    places = [i for i, item in enumerate(review.labels) if item.track.id in controls]
    assert places != list(range(10, 15))
    assert all(lines[name]["guess"] == told[name]["guess"] for name in controls)
    assert "quality of the label" in (tmp_path / "r" / "review.html").read_text()
    assert [i.track.id for i in found.review(10, 5).labels] == [i.track.id for i in review.labels]


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in (
        b'x"><script>alert(1)</script>.wav',
        b"caf\xe9 #1?.wav",
        b"%41&amp;.wav",
        "二つ's.wav".encode(),
    ):
        path = folder / os.fsdecode(name).replace("/", "∕")
        path.write_bytes(b"x")
        assert (tmp_path / os.fsdecode(unquote_bytes(link(path, tmp_path)))).is_file()
    tracks = open_dataset(folder, DataConfig(), CLASSES, labelled=False).tracks
    from beatmeter.experiments.audit.review import Item

    review = Review('<b>"', CLASSES, [Item(t, reason="</form><script>") for t in tracks])
    page = Page(review.to_html(tmp_path))
    assert len(page.of("script")) == 1
    assert [a["data-id"] for a in page.of("article")] == [t.id for t in tracks]
    review.to_csv().encode("utf-8")


def unquote_bytes(text: str) -> bytes:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(text)


def test_decisions_come_back_as_corrections(made: Made, found: Audit, tmp_path: Path) -> None:
    out = tmp_path / "r"
    write_audit(found, found.review(top=12), out)
    lines = table(out / "review.csv")
    for line in lines:
        line["new label"] = (
            "drop"
            if line["id"] in made.copies
            else made.truth[line["id"]]
            if line["id"] in made.wrong
            else "keep"
        )
    with (out / "review.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "label", "new label", "comment"])
        writer.writeheader()
        writer.writerows(lines)
    dataset = open_dataset(made.path, DataConfig(corrections=(str(out / "review.csv"),)), CLASSES)
    fixed = {t.id for t in dataset.tracks if ORIGINAL in t.extra}
    assert fixed == {line["id"] for line in lines} & made.wrong
    assert len(fixed) >= 6
    assert all(t.primary == made.truth[t.id] for t in dataset.tracks if t.id in fixed)
    assert {e.id for e in dataset.excluded} == {line["id"] for line in lines} & made.copies.keys()


# the command


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(data, ["audit", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_over_a_store(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "r"
    result = run(made.path, "--features", made.path / "cache", "--out", out, "--top", 5, "--controls", 1)
    assert result.exit_code == 1
    assert re.search(
        r"audited: 195 labels of 195 tracks audited", result.stdout.replace(made.path.name, "audited")
    )
    assert "the worst 5 are listed" in result.stdout
    assert "3 pairs of clips sound alike, 2 of them across splits" in result.stdout
    assert "note: too few groups to judge the classes 9, 11" in result.stderr
    assert "report original and corrected labels side by side" in result.stderr
    with pytest.raises(DataError, match="holds a review already"):
        run(made.path, "--features", made.path / "cache", "--out", out)


def test_the_command_says_what_is_missing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(tmp_path / "cache" / "one", spec())
    with pytest.raises(DataError, match=r"none of the 195 tracks .* has features in this store"):
        run(made.path, "--features", tmp_path / "cache", "--out", tmp_path / "r")
    Store.create(tmp_path / "cache" / "two", spec(STATS))
    with pytest.raises(StoreError, match="holds 2 feature stores: one, two"):
        run(made.path, "--features", tmp_path / "cache", "--out", tmp_path / "r")
    with pytest.raises(ConfigError, match=r"no recipe 'spectral-leg'\. Did you mean 'spectral-lag'\?"):
        run(made.path, "--features", "spectral-leg", "--out", tmp_path / "r")
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(DataError, match=r"pip install 'beatmeter\[audit\]'"):
        require_cleanlab()
    assert not (tmp_path / "r").exists()


def test_tracks_without_features_are_named(made: Made) -> None:
    keys = {name: key for name, key in made.keys().items() if name not in ("s3c0", "s3c1")}
    found = audit(made.open(), CLASSES, made.store.snapshot(), keys | {"s4c0": "0" * 64})
    assert [(e.id, e.kind) for e in found.dataset.excluded] == [
        ("s3c0", "no features"),
        ("s3c1", "no features"),
        ("s4c0", "no features"),
    ]


def test_the_command_extracts_with_a_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    for n in range(32):
        path = folder / "34"[n % 2] / f"{n}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(music(n, 1.2), ".flac"))
    (folder / "3" / "again.flac").write_bytes(encode(music(1, 1.2) * 0.7, ".flac"))
    arguments: Sequence[object] = (
        folder,
        "--features",
        "spectral-lag",
        "--cache",
        tmp_path / "cache",
        "--out",
        tmp_path / "r",
    )
    result = run(*arguments)
    assert result.exit_code == 1
    assert "1 pairs of clips sound alike" in result.stdout
    assert {(r["id"], r["twin"]) for r in table(tmp_path / "r" / "copies.csv")} == {
        ("3/again.flac", "4/1.flac")
    }
    assert "33 to extract" in result.stderr


def test_help_has_examples() -> None:
    assert "beatmeter data audit METER2800/" in run("--help").stdout
