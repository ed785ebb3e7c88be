"""Figures and pages: every figure draws whatever comes, text in them is never touched, pages work
offline."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from waiting import PATIENCE

from beatmeter.evaluation import figures
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.compare import compare
from beatmeter.evaluation.comparison.gate import gate
from beatmeter.evaluation.diagnostics import Limits, Quadrants, pair_correlations
from beatmeter.evaluation.metrics import measure
from beatmeter.evaluation.predictions import write_predictions
from beatmeter.evaluation.report.comparison_report import comparison_page, pair_figures
from beatmeter.evaluation.report.evaluation import Evaluation
from beatmeter.evaluation.report.players import Clip, Locate, excerpt, locator, sounding, worst
from beatmeter.evaluation.report.run_figures import run_figures, write_figures
from beatmeter.evaluation.report.run_report import run_page
from beatmeter.evaluation.report.subject import Subject
from beatmeter.evaluation.timeline import timeline, windows
from beatmeter.runtime.templates import environment
from beatmeter.schema import ClassPredictions

FAST = Limits(permutations=100, replicates=100)
HISTORY = [
    {
        "epoch": e,
        "train": {"loss": 1 / e},
        "val": {
            "loss": 0.3 + 1 / e,
            "accuracy": 0.5,
            "balanced_accuracy": 0.4 + 0.01 * e,
            "entropy": 0.5,
            "gap": 0.3,
            "worst_correlation": 0.1,
        },
        "layer_weights": {"stats": [1.0, 2.0, e]},
    }
    for e in range(1, 8)
]


def classes_of(n: int) -> ClassPredictions:
    """Two items of each of `n` classes, all right."""
    return ClassPredictions(
        classes=tuple(f"c{i}" for i in range(n)),
        ids=tuple(map(str, range(2 * n))),
        groups=tuple(map(str, range(2 * n))),
        sources=("",) * 2 * n,
        split="test",
        targets=np.tile(np.eye(n), (2, 1)),
        scores=np.clip(np.tile(np.eye(n), (2, 1)), 0.1, 0.9),
        primary=np.tile(np.arange(n), 2),
        times=np.full((2 * n, 2), np.nan),
    )


SUBJECTS = {
    "polymetric": controls.polymetric(0, songs=60),
    "leaky": controls.leaky(0, songs=60),
    "two classes": classes_of(2),
    "nine classes": classes_of(9),
    "all wrong": dataclasses.replace(classes_of(3), scores=np.tile(np.roll(np.eye(3), 1, axis=1), (2, 1))),
    "one item": controls.selective(0, songs=5).take([0]),
}


def subject(name: str) -> Subject:
    p = SUBJECTS[name]
    return Subject(name, Evaluation.of(p, limits=FAST), history=HISTORY)


def texts(svg: str) -> list[str]:
    return [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


@pytest.mark.parametrize("name", ["polymetric", "nine classes", "all wrong", "one item"])
def test_every_figure_draws_and_keeps_its_text(name: str) -> None:
    drawn = [d for group in run_figures(subject(name)).values() for d in group]
    assert {
        "confusion",
        "classes",
        "reliability",
        "selective",
        "class-reliability",
        "plane",
        "correlations",
        "training",
        "layers",
    } <= {d.name for d in drawn}
    for d in drawn:
        svg, inline = figures.to_svg(d.figure, d.name), figures.to_inline(d.figure, d.name, d.title)
        assert texts(inline) == texts(svg), d.name
        assert "var(--" in inline
        colours = re.findall(r"#[0-9a-f]{6}", re.sub(r'(href="#|url\(#)\w+', "", inline))
        assert not colours, f"{d.name} has colours that do not follow light and dark"
        assert len(inline) < len(svg)


def test_numbers_in_figures_are_those_of_the_evaluation() -> None:
    m = measure(SUBJECTS["leaky"], 50)
    inline = figures.to_inline(figures.confusion(SUBJECTS["leaky"].classes, m.confusion), "c", "")
    assert sorted(
        int(t) for t in texts(inline) if t.isdigit() and t not in SUBJECTS["leaky"].classes
    ) == sorted(int(n) for n in m.confusion.ravel() if n and str(n) not in SUBJECTS["leaky"].classes)
    c = compare({"a": [SUBJECTS["leaky"]], "b": [SUBJECTS["leaky"]]}, ["accuracy"], replicates=50)
    value = c.metrics["a"]["accuracy"].mean.value
    assert f"{value:.3f}" in texts(figures.to_inline(figures.comparison.systems(c), "s", ""))


def test_the_same_data_gives_the_same_svg() -> None:
    draw = lambda: figures.to_svg(figures.plane(SUBJECTS["leaky"], Quadrants(0.3, 0.5)), "plane")  # noqa: E731
    assert draw() == draw()


def test_files_are_png_and_svg(tmp_path: Path) -> None:
    drawn = run_figures(subject("two classes"))["answers"]
    paths = write_figures(drawn, tmp_path)
    assert sorted(p.name for p in paths) == ["classes.png", "classes.svg", "confusion.png", "confusion.svg"]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "confusion.svg").read_text()
    assert isinstance(drawn[0].figure, Figure)


def _linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Machado, Oliveira and Fernandes 2009, full severity; OKLab distance
BLIND = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def _oklab(rgb: np.ndarray) -> np.ndarray:
    first = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    second = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(second) @ np.cbrt(np.array(first) @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("mode", [0, 1])
def test_the_palette_can_be_read_by_everyone(mode: int) -> None:
    colour = {name: pair[mode] for name, pair in figures.PALETTE.items()}
    for name in ("ink", "muted", "blue", "red"):
        assert _contrast(colour[name], colour["surface"]) >= 4.5, name
    for matrix in BLIND.values():
        blue, red, grey = (100 * _oklab(matrix @ _linear(colour[c])) for c in ("blue", "red", "muted"))
        assert np.linalg.norm(blue - red) > 20
        assert min(np.linalg.norm(blue - grey), np.linalg.norm(red - grey)) > 9


class Page(HTMLParser):
    """Checks that tags close, and collects what a page refers to."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr", "path", "rect", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.figures: list[str] = []
        self.refers: list[str] = []
        self.sounds: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "figure":
            self.figures.append(values["id"] or "")
        if tag == "audio":
            self.sounds.append(values["src"] or "")
        self.refers += [
            v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith(("data:", "#"))
        ]
        if "id" in values:
            self.ids.append(values["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def check(text: str) -> Page:
    parsed = Page(text)
    assert not parsed.open
    assert not parsed.refers, "a page needs nothing from outside"
    assert "<script" not in text
    assert len(parsed.ids) == len(set(parsed.ids)), "ids are unique on the page"
    for place in re.findall(r"url\(#(\w+)\)|xlink:href=\"#(\w+)\"", text):
        assert (place[0] or place[1]) in parsed.ids
    return parsed


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as training leaves it, with a hostile name for one of its items."""
    folder = tmp_path / "runs" / "demo"
    test = controls.leaky(0, songs=60)
    test = dataclasses.replace(
        test,
        ids=("<script>alert('x')</script>&", *test.ids[1:]),
        meta={"run": "demo", "fingerprint": "f" * 64},
    )
    write_predictions(folder / "predictions" / "test.csv", test)
    write_predictions(folder / "predictions" / "val.csv", controls.leaky(1, songs=60, split="val"))
    (folder / "config.toml").write_text('seed = 3\n[data]\npath = "data/<demo>"\n')
    (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY))
    about = {
        "data": {"path": "data/<demo>", "sha256": "a" * 64},
        "split": {"sha256": "b" * 64, "tracks": {"train": 500}},
        "seed": 3,
    }
    about["command"] = "beatmeter train --frozen data"
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "best.json").write_text('{"epoch": 5}')
    (folder / "excluded.csv").write_text(
        "id,path,row,kind,reason,split,source\nGTZAN/a,/GTZAN/a.wav,3,missing,there is no audio "
        "file,train,GTZAN\n"
    )
    Calibration.fit(controls.leaky(1, songs=60, split="val")).save(folder / "calibration.json")
    return folder


def test_the_page_of_a_run_answers_at_a_glance(run: Path) -> None:
    s = Subject.read(run, limits=FAST)
    text = run_page(s, command="beatmeter report runs/demo")
    parsed = check(text)
    assert parsed.figures == [
        "confusion",
        "classes",
        "reliability",
        "reliability-calibrated",
        "selective",
        "class-reliability",
        "plane",
        "correlations",
        "noise-floor",
        "training",
        "layers",
    ]
    glance = ("How good?", "How sure?", "Which errors?", "Output leakage?", "Second meter from")
    for words in (*glance, "Verdict: output leakage", "epoch", "a" * 64, "b" * 64, "f" * 64):
        assert words in text, words
    assert "GTZAN/a" in text
    assert "epoch (kept: 5)" in text
    assert "there is no audio file" in text
    assert "beatmeter train --frozen data" in text
    assert "beatmeter report runs/demo" in text
    assert "path = &#34;data/&lt;demo&gt;&#34;" in text
    accuracy = s.evaluation.measures.overall["accuracy"]
    assert f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]" in text
    assert "thresholds from the split &#39;val&#39;" in text


@pytest.mark.parametrize("name", ["two classes", "all wrong", "one item"])
def test_pages_of_any_predictions_are_whole(name: str) -> None:
    check(run_page(dataclasses.replace(subject(name), history=())))


def test_original_and_corrected_labels_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    s = Subject.read(run, limits=FAST)
    p = s.evaluation.predictions
    file = tmp_path / "corrections.csv"
    file.write_text(f"id,label\n{p.ids[3]},11\n")
    corrected = s.corrected_by(file, FAST)
    text = run_page(corrected)
    assert "original labels" in text
    assert "corrected labels" in text
    assert "corrections.csv" in text
    assert (
        corrected.evaluation.measures.overall["accuracy"].value
        == s.evaluation.measures.overall["accuracy"].value
    )


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A file for every item of the leaky control: a tone of 20 s, whose second half is higher."""
    folder = tmp_path / "music"
    folder.mkdir()
    t = np.arange(20 * 8000) / 8000
    wave = 0.5 * np.sin(2 * np.pi * np.where(t < 10, 200, 400) * t)
    for clip in worst(controls.leaky(0, songs=60)):
        (folder / clip.id).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{clip.id}.wav", wave, 8000)
    return folder


def test_worst_clips_can_be_heard(music: Path) -> None:
    p = controls.leaky(0, songs=60)
    s = Subject("x", Evaluation.of(p, limits=FAST))
    parsed = check(run_page(s, locator(p, music), seconds=2.0))
    assert len(parsed.sounds) == 12
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(parsed.sounds[0].split(",")[1])))
    assert len(sound) / rate == pytest.approx(2.0, abs=0.1)
    assert 0.3 < np.abs(sound).max() < 0.7
    told = dataclasses.replace(p, meta={"audio": {c.id: str(music / f"{c.id}.wav") for c in worst(p)}})
    assert (
        len(
            check(run_page(Subject("x", Evaluation.of(told, limits=FAST)), locator(told), seconds=1.0)).sounds
        )
        == 12
    )


def test_excerpts_start_at_their_window(music: Path) -> None:
    path = next(music.rglob("*.wav"))

    def pitch(start: float | None) -> float:
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(excerpt(path, start, 2.0).split(",")[1])))
        return float(np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound))

    assert pitch(2.0) == pytest.approx(200, abs=8)
    assert pitch(14.0) == pytest.approx(400, abs=8)


def test_audio_that_is_not_found_is_said(tmp_path: Path) -> None:
    p = controls.leaky(0, songs=60)
    clip = Clip("<a>", "said", {"3": 0.4}, ("3",), "3", 2.0)
    text = clips([clip], locator(p))
    assert "no audio: it is not known where the audio of &#39;&lt;a&gt;&#39; lies" in text
    assert "at 2.0 s" in text
    assert "no audio: there is no audio file" in clips([clip], locator(p, tmp_path))
    assert "audio" not in clips([clip], None)


def clips(shown: list[Clip], locate: Locate | None) -> str:
    """The clips as a page shows them."""
    blocks = environment("beatmeter.evaluation.report").get_template("blocks.html").module
    return str(blocks.clips(sounding(shown, locate, 2.0)))


def test_the_worst_come_first_and_second_labels_last() -> None:
    p = controls.leaky(3, songs=60)
    clips = worst(p, 1000)
    at = {i: k for k, i in enumerate(p.ids)}
    margins = [
        (
            p.targets[at[c.id], p.classes.index(c.answer)] > 0,
            -(c.scores[c.answer] - p.scores[at[c.id], p.primary[at[c.id]]]),
        )
        for c in clips
    ]
    assert margins == sorted(margins)
    assert len(clips) == (p.scores.argmax(axis=1) != p.primary).sum()


def test_the_page_of_a_comparison(music: Path) -> None:
    base = controls.leaky(0, songs=60)
    other = dataclasses.replace(
        base,
        scores=np.clip(base.scores + np.random.default_rng(0).normal(0, 0.15, base.scores.shape), 0.01, 0.99),
    )
    c = compare({"first & best": [base], "second": [other], "third": [base, other]}, replicates=100)
    text = comparison_page(c, "a comparison", locator(base, music), 1.0, "beatmeter compare")
    parsed = check(text)
    assert len([f for f in parsed.figures if f.startswith("differences-")]) == 2
    assert len([f for f in parsed.figures if f.startswith("agreement-")]) == 1, (
        "the matrix needs single seeds"
    )
    assert "first &amp; best" in text
    assert "McNemar" in text
    assert len(pair_figures(c, c.pairs[0])) == 3


def test_small_figures_on_their_own() -> None:
    times = windows(60.0)
    scores = np.full((len(times), 6), 0.2) + 0.6 * np.eye(6)[np.where(times.mean(axis=1) < 30, 0, 3)]
    t = timeline(times, scores, controls.CLASSES, np.full(6, 0.7))
    assert "3" in texts(figures.to_inline(figures.timeline(t), "t", "timeline"))
    g = gate(controls.leaky(0, songs=30), controls.leaky(0, songs=30, strength=1.0), ("a", "b"))
    assert str(g.both_right) in texts(figures.to_inline(figures.comparison.gate(g), "g", "gate"))
    assert len(pair_correlations(SUBJECTS["two classes"], FAST)) == 1


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_a_browser_shows_every_figure_and_a_phone_needs_no_sideways_scrolling(
    run: Path, tmp_path: Path
) -> None:
    text = run_page(Subject.read(run, limits=FAST))
    ask = (
        "const f = document.querySelector('iframe'); f.onload = () => { const d = f.contentDocument;"
        "const bad = [...d.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().height < "
        "50).length;"
        "document.title = JSON.stringify({width: d.documentElement.scrollWidth, figures: "
        "d.querySelectorAll('figure svg').length, bad}); };"
    )
    wrapper = tmp_path / "phone.html"
    script = json.dumps(text).replace("</", "<\\/")
    frame = '<html><body><iframe style="width:375px;height:800px;border:0"></iframe>'
    wrapper.write_text(f"{frame}<script>{ask} f.srcdoc = {script};</script></body></html>")
    quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync"
    options = f"--headless --no-sandbox --disable-gpu --enable-logging=stderr {quiet}"
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            *options.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=4000",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert (seen["figures"], seen["bad"]) == (11, 0)
    assert seen["width"] <= 375
    assert "CONSOLE" not in done.stderr, done.stderr
