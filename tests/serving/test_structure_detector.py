"""The structure of a track: a listener in flat memory equals the head over all of it; files, words and
numbers of the command."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from beatmeter.audio.decode import load
from beatmeter.cli import answers as printed
from beatmeter.cli import cli
from beatmeter.datasets.annotations import read_annotation
from beatmeter.datasets.dj.rekordbox import read_rekordbox
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import AudioError, BeatmeterError, RunError
from beatmeter.learning import checkpoints
from beatmeter.learning.checkpoints import handed_on
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import Curves, MarkList, Track
from beatmeter.serving import curves as serving_curves
from beatmeter.serving.answer import Answer
from beatmeter.serving.clicks import click
from beatmeter.serving.curves import CurveModel
from beatmeter.serving.models import SHIPPED
from beatmeter.serving.structure import StructureDetector, find_breaks
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A beats model that has learned next to nothing, and its music beside it."""
    root = tmp_path_factory.mktemp("structure")
    synthesise(root / "music", 12, SynthPlan(seconds=6.0, val=0.3))
    config = change(
        RunConfig(),
        {
            "data": {"path": str(root / "music")},
            "task": {"name": "beats"},
            "features": {
                "backbone": "embedded",
                "overlap": 1.0,
                "poolings": ("beats=frames:1+2@25", "mel@25"),
                "cache": str(root / "cache"),
            },
            "head": {"poolings": ("beats", "mel"), "channels": 8, "dilations": (1, 4)},
            "training": {"epochs": 1, "batch": 4, "accumulation": 1},
        },
    )
    run(config, root / "run", CPU, predict=["val"], report=lambda text: None)
    return root


@pytest.fixture(scope="module")
def song(trained: Path) -> Path:
    """20 s of clicks, two a second, the first of four louder."""
    wave = np.zeros(20 * 24_000, np.float32)
    for i in range(40):
        sound = click(i % 4 == 0) * (1.0 if i % 4 == 0 else 0.4)
        wave[i * 12_000 : i * 12_000 + len(sound)] += sound
    path = trained / "song.wav"
    soundfile.write(path, wave, 24_000, subtype="PCM_16")
    return path


def test_a_run_writes_curves_and_what_is_decoded_from_them(trained: Path) -> None:
    folder = trained / "run" / "predictions"
    assert {p.name for p in folder.iterdir()} == {
        "val.csv",
        "val.meta.json",
        "val.curves.npz",
        "val.curves.meta.json",
    }
    evaluation = json.loads((trained / "run" / "evaluation" / "val.json").read_text())
    assert {m["name"] for m in evaluation["metrics"]} >= {"beat_f", "downbeat_f"}


def test_curves_in_stretches_are_those_of_the_whole(
    trained: Path, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wave = CurveModel(trained / "run", CPU), load(song, 24_000)

    def heard(block: int) -> Curves:
        listener = model.listen(len(wave))
        for at in range(0, len(wave), block):
            listener.push(wave[at : at + block])
        return listener.finish(Track("song", song))

    whole = heard(len(wave))
    monkeypatch.setattr(serving_curves, "STRETCH", 3.0)
    monkeypatch.setattr(serving_curves, "AROUND", 1.0)
    parts = heard(30_000)
    assert whole.values[0].shape == (500, 2)
    assert np.abs(whole.values[0] - parts.values[0]).max() < 1e-4
    assert whole.starts[0] == pytest.approx(0.0217, abs=0.001)


@pytest.fixture(scope="module")
def answers(trained: Path, song: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    (out / "broken.mp3").write_bytes(b"no music")
    options = ["--model", str(trained / "run"), "--json", "--beats", "--lab", "--jams", "--out", str(out)]
    options += ["--rekordbox", str(out / "import.xml")]
    result = CliRunner().invoke(cli, ["structure", str(song), str(out / "broken.mp3"), *options])
    assert result.exit_code == 1, "a file that cannot be heard is told by the status, the others are answered"
    assert result.stderr.count("broken.mp3") == 1, "once"
    return out, result.stdout


def test_the_command_writes_json_and_annotations(answers: tuple[Path, str], song: Path) -> None:
    out, text = answers
    (line,) = text.splitlines()
    found = json.loads(line)
    assert {"tempo", "beats", "downbeats", "sections", "events", "steadiness", "meter"} <= found.keys()
    assert set(found["downbeats"]) <= set(found["beats"])
    assert len(found["places"]) == len(found["beats"])
    sections = found["sections"]
    assert sections[0]["start"] == 0.0
    assert sections[-1]["end"] == pytest.approx(20.0, abs=0.1)
    assert all(a["end"] == b["start"] for a, b in pairwise(sections))
    grid = read_annotation(out / "song.beats").grid
    assert grid is not None
    assert np.allclose(grid.times, found["beats"], atol=0.002)
    spans = read_annotation(out / "song.lab").sections
    assert spans is not None
    assert list(spans.labels) == [s["label"] for s in sections]
    assert read_annotation(out / "song.jams").grid is not None
    (track,) = read_rekordbox(out / "import.xml").tracks
    assert Path(track.location) == song
    assert track.cues[0].time == pytest.approx(sections[0]["start"], abs=0.002)
    assert abs(track.tempos[0].time - found["beats"][0]) <= 0.03


def test_plot_and_clicks_are_of_one_file(trained: Path, song: Path, tmp_path: Path) -> None:
    model = ["--model", str(trained / "run")]
    plot, clicks = tmp_path / "s.svg", tmp_path / "c.wav"
    result = CliRunner().invoke(
        cli, ["structure", str(song), *model, "--plot", str(plot), "--clicks", str(clicks)]
    )
    assert result.exit_code == 0, result.output
    assert "section" in result.stdout
    assert "bpm" in result.stdout or "no beats" in result.stdout
    assert plot.read_text().startswith("<?xml")
    assert soundfile.info(clicks).frames == 20 * 24_000
    for wrong, what in (
        (["--plot", "x.pdf"], "a .png or .svg file"),
        (["--clicks", "x.mp3"], "a .wav file"),
        (["--clicks", "x.wav", str(song)], "2 files were named"),
    ):
        refused = CliRunner().invoke(cli, ["structure", str(song), *model, *wrong])
        assert isinstance(refused.exception, BeatmeterError)
        assert what in str(refused.exception)


def test_a_model_of_beats_is_handed_on_in_half_precision(trained: Path, song: Path, tmp_path: Path) -> None:
    whole = trained / "run" / "best.safetensors"
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("config.toml", "run.json"):
        (packed / name).write_bytes((trained / "run" / name).read_bytes())
    (packed / whole.name).write_bytes(handed_on(whole, half="head."))
    before, after = (checkpoints.read(f)[0] for f in (whole, packed / whole.name))
    head = [name for name in before if name.startswith("head.")]
    assert head
    assert all(after[name].dtype == torch.float16 for name in head)
    assert all(torch.equal(before[n], after[n]) for n in before if n not in head), "not the standardiser"
    one, two = (next(StructureDetector.load(run).hear_files([song]))[1] for run in (trained / "run", packed))
    assert not isinstance(one, BeatmeterError)
    assert not isinstance(two, BeatmeterError)
    assert np.abs(one.curves.values[0] - two.curves.values[0]).max() < 5e-3


def test_predict_says_the_tempo_beside_the_meter_where_it_is_asked(song: Path) -> None:
    said = CliRunner().invoke(cli, ["predict", "spectral-lag", str(song), "--tempo"])
    assert said.exit_code == 0, said.output
    cells = said.stdout.strip().split("\t")
    assert cells[-1].startswith("bpm=")
    assert float(cells[-1].removeprefix("bpm=")) == pytest.approx(120, abs=1)
    assert "bpm" not in CliRunner().invoke(cli, ["predict", "spectral-lag", str(song)]).stdout


def test_the_answers_of_predict_have_a_place_for_the_tempo() -> None:
    heard = Answer(("3", "4"), np.array([0.2, 0.8]), 20.0, tempo=118.25)
    deaf = replace(heard, tempo=None)
    assert printed.columns("a", heard, scores=True, tempo=True).endswith("4=0.800\tbpm=118.2")
    assert printed.columns("a", deaf, scores=False, tempo=True).endswith("\tbpm=-")
    header = printed.csv_header(heard.classes, tempo=True).split(",")
    for answer in (heard, deaf, AudioError("no audio")):
        assert len(printed.csv_row("a", answer, heard.classes, tempo=True).split(",")) == len(header)
    row = dict(zip(header, printed.csv_row("a", heard, heard.classes, True).split(","), strict=True))
    assert row["bpm"] == "118.25"
    assert heard.to_json()["tempo"] == 118.25
    assert "tempo" not in deaf.to_json()
    lines = printed.Lines(["a"], heard.classes, 80, scores=False, tempo=True)
    assert lines.answer("a", heard).endswith("118.2 bpm")


def test_a_model_of_moments_is_trained_evaluated_and_asked(trained: Path, song: Path) -> None:
    """Sections of a few clips: what they are is of no account, that every command works is."""
    music = trained / "music"
    (music / "lab").mkdir(exist_ok=True)
    for clip in sorted((music / "audio").iterdir()):
        (music / "lab" / f"{clip.stem}.lab").write_text("0\t3\tA\n3\t6\tB\n")
    values = {
        "data": {"path": str(music)},
        "task": {"name": "structure", "parts": ("boundaries",)},
        "features": {
            "backbone": "embedded",
            "overlap": 1.0,
            "poolings": ("own=frames:1+2@5", "mel@5"),
            "cache": str(trained / "cache"),
        },
        "head": {"poolings": ("own", "mel"), "channels": 8, "dilations": (1, 4)},
        "training": {"epochs": 1, "batch": 4, "accumulation": 1},
    }
    run(change(RunConfig(), values), trained / "moments", CPU, predict=["val"], report=lambda text: None)
    evaluation = json.loads((trained / "moments" / "evaluation" / "val.json").read_text())
    assert {m["name"] for m in evaluation["metrics"]} >= {"hr5", "hr3"}
    said = CliRunner().invoke(cli, ["predict", str(trained / "moments"), str(song), "--json"])
    assert said.exit_code == 0, said.output
    marks = json.loads(said.stdout)["marks"]
    sections = [m for m in marks if m["kind"] == "section"]
    assert sections[0]["start"] == 0.0
    assert sections[-1]["end"] == pytest.approx(20.0, abs=0.3)
    with pytest.raises(RunError, match="hears no beats"):
        StructureDetector.load(trained / "moments")


def test_a_model_without_curves_is_refused() -> None:
    with pytest.raises(RunError, match="hears no beats"):
        CurveModel(SHIPPED / "spectral-lag", CPU)


def test_predict_says_which_command_hears_a_model_of_curves(trained: Path, song: Path) -> None:
    refused = CliRunner().invoke(cli, ["predict", str(trained / "run"), str(song)])
    assert isinstance(refused.exception, RunError)
    assert "hears beats" in str(refused.exception)
    assert "beatmeter structure" in str(refused.exception)


def test_a_fall_of_bass_is_a_break() -> None:
    sections = MarkList.spans(
        "section", [0.0, 10.0, 20.0, 30.0], [10.0, 20.0, 30.0, 40.0], ["A", "B", "A", "C"]
    )
    energy = np.full((4, 4), 5.0)
    energy[:, 0] = [4, 8, 7, 2]
    found = find_breaks(sections, energy)
    assert list(zip(found.kinds, found.starts.tolist(), strict=True)) == [("break", 30.0)]


def test_silence_has_no_beats_and_one_section(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "hum.wav"
    soundfile.write(
        path, 1e-4 * np.random.default_rng(0).standard_normal(3 * 24_000), 24_000, subtype="PCM_16"
    )
    (pair,) = StructureDetector.load(trained / "run").hear_files(path)
    assert not isinstance(pair[1], BeatmeterError)
    assert pair[1].to_json()["seconds"] == 3.0
