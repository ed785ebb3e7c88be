"""The whole loop: planted errors, the audit, decisions by the truth, annotations that are nearer to it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner, Result

from beatmeter.cli.data import data
from beatmeter.cli.train import evaluate, train
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Grid, find_annotations
from beatmeter.errors import DataError
from beatmeter.evaluation.metrics.beats import f_measure
from beatmeter.evaluation.records import read_records
from beatmeter.experiments.audit.beat_review import BeatReview, onset_strength, places, to_csv
from beatmeter.experiments.audit.events import Doubt, without_echoes
from beatmeter.schema import Track
from beatmeter.settings import METERS, DataConfig

NAN = float("nan")


def run(command: object, *words: object) -> Result:
    result = CliRunner().invoke(command, [str(word) for word in words])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def grids(folder: Path, *corrections: Path) -> dict[str, Grid]:
    config = DataConfig(corrections=tuple(map(str, corrections)))
    found = find_annotations(open_dataset(folder, config, METERS).tracks)
    return {id: annotation.grid for id, annotation in found.items()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mean_f(truth: dict[str, Grid], found: dict[str, Grid]) -> float:
    return float(np.mean([f_measure(truth[id].times, found[id].times, 0.0) for id in truth]))


@dataclass(frozen=True)
class Planted:
    """A set with errors in its beats, the right ones by id, its review, and the same as a person filled it
    in."""

    folder: Path
    truth: dict[str, Grid]
    review: Path
    decided: Path


@pytest.fixture(scope="module")
def planted(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """24 clips; of their beats a tenth is shifted, a tenth dropped, and a few are made up."""
    folder = tmp_path_factory.mktemp("planted") / "MUSIC"
    shutil.copytree(clips, folder)
    lines = (folder / "manifest.csv").read_text().splitlines()
    (folder / "manifest.csv").write_text("\n".join([lines[0], *lines[1::2], ""]))
    truth = grids(folder)
    rng = np.random.default_rng(1)
    for track in open_dataset(folder, DataConfig(), METERS).tracks:
        true, rows = truth[track.id], []
        for time, place in zip(true.times.tolist(), true.places.tolist(), strict=True):
            draw = rng.random()
            if draw >= 0.1:
                rows.append((time + (draw >= 0.9) * rng.uniform(0.08, 0.15), place))
            if draw > 0.85:
                rows.append((time + 0.23, place))
        kept = [rows[0], *(b for a, b in pairwise(rows) if b[0] - a[0] > 0.06)]
        text = "".join(f"{t:.4f}\t{p}\n" for t, p in kept)
        (folder / track.extra["beats"]).write_text(text)
    review = folder.parent / "review"
    done = run(data, "annotations", "audit", folder, "--out", review, "--top", 60)
    assert f"{review / 'review.html'}: listen and decide (without the suggestions)" in done.stdout
    decided = folder.parent / "decided.csv"
    _decide(table(review / "review.csv"), truth, grids(folder), decided)
    return Planted(folder, truth, review, decided)


def _decide(rows: list[dict[str, str]], truth: dict[str, Grid], now: dict[str, Grid], out: Path) -> None:
    """What a reviewer does who hears where the beats are: keep what is right, move what is beside a beat
    that nobody has, drop what is beside none, add what is lacking."""
    taken: dict[str, list[float]] = {id: grid.times.tolist() for id, grid in now.items()}
    for row in rows:
        id, true = row["id"], truth[row["id"]].times
        at = float(row["time"] or row["suggested"])
        near = float(true[np.abs(true - at).argmin()])
        free = min(abs(near - other) for other in taken[id] if not row["time"] or other != at) > 0.055
        if row["time"] and abs(near - at) <= 0.04:
            row["new time"] = "keep"
        elif abs(near - at) <= (0.2 if row["time"] else 0.07) and free:
            row["new time"] = f"{near:.3f}"
            taken[id].append(near)
        else:
            row["new time"] = "drop" if row["time"] else "keep"
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_beats_are_nearer_to_the_truth_after_the_loop(planted: Planted, tmp_path: Path) -> None:
    before, after = grids(planted.folder), grids(planted.folder, planted.decided)
    assert mean_f(planted.truth, after) > mean_f(planted.truth, before) + 0.02
    worse = [
        id
        for id in before
        if f_measure(planted.truth[id].times, after[id].times, 0.0)
        < f_measure(planted.truth[id].times, before[id].times, 0.0) - 1e-9
    ]
    assert worse == []
    words = ("annotations", "correct", planted.folder, "--corrections", planted.decided)
    assert run(data, *words, "--out", tmp_path / "out").exit_code in (0, 1)
    assert len(list((tmp_path / "out").glob("*.json"))) == len(before)
    again = run(
        data, "annotations", "audit", planted.folder, "--corrections", planted.decided,
        "--out", tmp_path / "second.csv", "--top", 5,
    )  # fmt: skip
    assert "the worst 5 of" in again.stdout


def test_a_head_is_trained_on_corrected_beats_and_says_so(planted: Planted, tmp_path: Path) -> None:
    settings = {
        "task.name": "beats",
        "features.backbone": "spectral",
        "features.poolings": "mel@25",
        "features.cache": tmp_path / "cache",
        "head.poolings": "mel",
        "head.channels": 4,
        "head.dilations": 1,
        "training.epochs": 1,
        "data.corrections": planted.decided,
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    out = tmp_path / "run"
    told = run(train, planted.folder, "--frozen", *words, "--device", "cpu", "--out", out)
    (done,) = json.loads((out / "run.json").read_text())["data"]["corrections"]
    changed = done["moved"] + done["removed"] + done["added"]
    assert f"{changed} beats corrected" in told.stderr
    assert min(done["moved"], done["removed"], done["added"], done["kept"]) > 0
    assert sum(map(len, done["beats"].values())) == changed
    assert len(done["sha256"]) == 64
    corrected = grids(planted.folder, planted.decided)
    record = read_records(out / "predictions" / "val.csv")
    for id, truth in zip(record.ids, record.truth, strict=True):
        assert np.allclose(truth.beats, corrected[id].times)
    second = tmp_path / "second.csv"
    id, grid = next((id, corrected[id]) for id in record.ids)
    second.write_text(f"id,time,suggested,new time\n{id},{grid.times[1]:.3f},,drop\n")
    run(evaluate, out, "--split", "val", "--corrections", second, "--device", "cpu")
    again = read_records(out / "predictions" / "corrected-val.csv")
    assert len(again.truth[again.ids.index(id)].beats) == len(grid) - 1


def test_a_truncated_file_is_named_and_left_out(planted: Planted, tmp_path: Path) -> None:
    folder = tmp_path / "MUSIC"
    shutil.copytree(planted.folder, folder)
    broken = open_dataset(folder, DataConfig(), METERS).tracks[0]
    broken.path.write_bytes(broken.path.read_bytes()[:5000])
    done = run(data, "annotations", "audit", folder, "--out", tmp_path / "review.csv")
    assert done.exit_code == 1
    assert re.search(rf"left out: .*{re.escape(broken.path.name)}", done.stderr)
    listed = {row["id"] for row in table(tmp_path / "review.csv")}
    assert listed
    assert broken.id not in listed
    beats = sum(len(grid) for id, grid in grids(folder).items() if id != broken.id)
    assert f"of {beats} beats" in done.stdout
    assert f"in {len(planted.truth) - 1} tracks" in done.stdout


def test_the_review_is_whole_and_blind(planted: Planted) -> None:
    rows = table(planted.review / "review.csv")
    assert list(rows[0]) == ["id", "kind", "time", "suggested", "quality", "new time", "comment"]
    assert {row["kind"] for row in rows} == {"wrong", "shifted", "missing"}
    assert all(row["new time"] == row["comment"] == "" for row in rows)
    assert [float(row["quality"]) for row in rows] == sorted(float(row["quality"]) for row in rows)
    text = (planted.review / "review.html").read_text()
    assert not re.search(
        r"https?:|//[a-z]", re.sub(r"<script>.*?</script>|data:[^\"]*", "", text, flags=re.S)
    )
    said = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", text, flags=re.S)
    assert not re.search("missing, |shifted|Take the suggestion", said)
    ids = re.findall(r'<article data-rank="(\d+)"', text)
    assert sorted(map(int, ids)) == list(range(len(rows)))
    sources = re.findall(r'<audio[^>]*src="([^"]*)"', text)
    assert len(sources) == len(rows)
    assert all((planted.review / unquote(source)).resolve().is_file() for source in sources)


def test_what_is_decided_is_never_written_over(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="review holds a review already"):
        run(data, "annotations", "audit", planted.folder, "--out", planted.review)
    copy = tmp_path / "decided.csv"
    copy.write_bytes(planted.decided.read_bytes())
    with pytest.raises(DataError, match=r"decided\.csv holds 60 decisions"):
        run(data, "annotations", "audit", planted.folder, "--out", copy)
    assert copy.read_bytes() == planted.decided.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, OSError)):
        run(data, "annotations", "audit", planted.folder, "--top", 1, "--out", tmp_path / "file" / "review")


def test_a_shifted_beat_is_asked_once() -> None:
    doubts = [
        Doubt("a", NAN, 2.0, 0.1),
        Doubt("a", NAN, 4.0, 0.2),
        Doubt("b", NAN, 2.0, 0.3),
        Doubt("a", 2.12, 2.0, 0.4),
        Doubt("a", 5.0, NAN, 0.5),
    ]
    assert [(d.id, d.kind, d.suggested, d.quality) for d in without_echoes(doubts)][:3] == [
        ("a", "shifted", 2.0, 0.1),
        ("a", "missing", 4.0, 0.2),
        ("b", "missing", 2.0, 0.3),
    ]
    assert len(without_echoes(doubts)) == 4
    assert to_csv(doubts).splitlines()[4] == "a,shifted,2.120,2.000,0.4000,,"


def test_onsets_stand_where_they_sound() -> None:
    wave = np.zeros(48_000, np.float32)
    rng = np.random.default_rng(0)
    times = [0.3, 0.81, 1.333]
    for time in times:
        first = round(24_000 * time)
        wave[first : first + 1200] = 0.5 * rng.normal(size=1200) * np.exp(-np.arange(1200) / 300)
    strength = onset_strength(wave)
    assert len(strength) == 201
    for time in times:
        around = strength[round(100 * time) - 5 : round(100 * time) + 6]
        assert abs(int(around.argmax()) - 5) <= 1


def test_hostile_names_do_no_harm(clips: Path, tmp_path: Path) -> None:
    path = next((clips / "audio").iterdir())
    name = 'x"></article><script>alert(1)</script>'
    other = tmp_path / "a #1?'.flac"
    other.write_bytes(path.read_bytes())
    grid = Grid([1.0, 2.0, 3.0], [1, 2, 3], known=[[0, 7]])
    made = places([Doubt(name, 2.0, NAN, 0.1)], [Track(name, other)], {name: grid}, {name: np.zeros(350)})
    text = BeatReview('<b>"', [Doubt(name, 2.0, NAN, 0.1)], made).to_html(tmp_path)
    assert len(re.findall("<script", text)) == 1
    assert text.count("<article") == text.count("</article>") == 1
    assert unquote(re.findall(r'<audio[^>]*src="([^"]*)"', text)[0]) == "a #1?'.flac"
