"""The pages of reviews in a browser, opened as files: decisions by mouse and keys, clicks on the very sample,
a CSV file that is taken back."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from waiting import PATIENCE, until

from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Grid, find_annotations
from beatmeter.datasets.beat_corrections import BeatFile, correct_beats
from beatmeter.experiments.audit.beat_review import BeatReview, places, write_review
from beatmeter.experiments.audit.events import Doubt
from beatmeter.experiments.audit.review import Item, Review
from beatmeter.settings import METERS, DataConfig

NAN = float("nan")
RATE = 24_000
BEATS = [(1.0 + 0.5 * k, k % 4 + 1) for k in range(16) if k != 9]  # to 8.5 s, none at 5.5 s
CLICKS = [1.0 + 0.5 * k for k in range(16)]

# Every buffer that the page plays, and where; AudioContext as it is otherwise.
SPY = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.played.push({ offset, rate: this.buffer.sampleRate, samples: [...this.buffer.getChannelData(0)] });
  return start.call(this, when, offset);
};
"""


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Any]) -> Iterator[Any]:
    started = chromium("autoplay-policy=no-user-gesture-required")
    yield started
    started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tracks with soft noises on the beat; one beat of each is annotated 100 ms late, one is lacking."""
    path = tmp_path_factory.mktemp("m") / "MUSIC"
    (path / "audio").mkdir(parents=True)
    (path / "beats").mkdir()
    noise = np.random.default_rng(0).normal(size=600) * np.exp(-np.arange(600) / 150)
    for name in ("one", "two, too"):
        wave = np.zeros(10 * RATE)
        for time in CLICKS:
            wave[round(time * RATE) : round(time * RATE) + 600] += 0.1 * noise
        soundfile.write(path / "audio" / f"{name}.wav", wave, RATE)
        late = [(t + 0.1 * (t == 4.0), p) for t, p in BEATS]
        (path / "beats" / f"{name}.beats").write_text("".join(f"{t:.3f}\t{p}\n" for t, p in late))
    return path


ONE, TWO = "audio/one.wav", "audio/two, too.wav"
DOUBTS = [
    Doubt(TWO, 4.1, 4.0, 0.01),
    Doubt(ONE, NAN, 5.5, 0.02),
    Doubt(ONE, 7.0, NAN, 0.03),
    Doubt(ONE, 4.1, 4.0, 0.04),
    Doubt(TWO, 2.0, NAN, 0.05),
]


def reviewed(folder: Path, out: Path, show_guess: bool = False) -> Path:
    dataset = open_dataset(folder, DataConfig(), METERS, labelled=False)
    grids: dict[str, Grid] = {id: a.grid for id, a in find_annotations(dataset.tracks).items()}
    curves = {id: np.full(500, 0.5) for id in grids}
    write_review(BeatReview("Beats", DOUBTS, places(DOUBTS, dataset.tracks, grids, curves)), out, show_guess)
    return out / "review.html"


@contextlib.contextmanager
def visiting(browser: Any, page_file: Path, **options: Any) -> Iterator[Any]:
    """The page, opened as a file. It fails when the page asks for anything but itself and audio beside it."""
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(SPY)
    page = context.new_page()
    faults: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else faults.append(r.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(page_file.as_uri())
    yield page
    context.close()
    assert faults == []


def saved(page: Any) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator("#save").click()
    return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


def place(page: Any, doubt: Doubt) -> Any:
    time = f"{doubt.time:.3f}" if doubt.time == doubt.time else ""
    return page.locator(f'article[data-id="{doubt.id}"][data-time="{time}"]')


def click_at(page: Any, card: Any, time: float, **how: Any) -> None:
    """Click into the picture of a card where a time is."""
    strip = card.locator(".strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    start, seconds = (float(card.get_attribute(f"data-{name}")) for name in ("start", "seconds"))
    strip.click(position={"x": (time - start) / seconds * box["width"], "y": box["height"] / 2}, **how)


def test_decisions_by_keys_become_corrections(browser: Any, folder: Path, tmp_path: Path) -> None:
    page_file = reviewed(folder, tmp_path / "review")
    with visiting(browser, page_file) as page:
        order = page.eval_on_selector_all("article", "cards => cards.map((c) => c.dataset.rank)")
        assert order == ["4", "0", "3", "1", "2"], "by track, the one with the worst first; in it by time"
        page.keyboard.press("k")  # two, 2.0 s; goes on
        page.keyboard.press("s")  # two, 4.1 s
        assert page.locator("#count").inner_text() == "1 of 5 decided", "the suggestion is shown first"
        assert place(page, DOUBTS[0]).locator(".mark.guess").count() == 1
        page.keyboard.press("s")
        assert place(page, DOUBTS[0]).locator(".label").inner_text() == "100 ms earlier"
        page.keyboard.press("Enter")  # one, 4.1 s: by its onset
        page.keyboard.press("d")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("u")
        click_at(page, place(page, DOUBTS[3]), 3.98)
        page.keyboard.press("ArrowDown")  # one, 5.5 s
        page.keyboard.press("d")  # there is no beat: nothing happens
        click_at(page, place(page, DOUBTS[1]), 5.47, modifiers=["Shift"])
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("d")  # one, 7.0 s
        place(page, DOUBTS[2]).locator(".comment").fill('a "rest", k')
        assert page.locator("#count").inner_text() == "5 of 5 decided"
        before = saved(page)
        page.reload()
        rows = saved(page)
        assert rows == before, "the browser keeps decisions"
    assert [row["id"] for row in rows] == [d.id for d in DOUBTS], "the file is worst first"
    assert [row["new time"] for row in rows if row["new time"] in ("keep", "drop")] == ["drop", "keep"]
    assert rows[0]["new time"] == "4.000"
    assert abs(float(rows[1]["new time"]) - 5.5) < 0.01
    assert abs(float(rows[3]["new time"]) - 4.0) <= 0.0101, "on the onset, not where it was clicked"
    assert rows[2]["comment"] == 'a "rest", k'
    review = tmp_path / "saved.csv"
    with review.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    dataset = correct_beats(open_dataset(folder, DataConfig(), METERS, labelled=False), BeatFile.read(review))
    grid = find_annotations(dataset.tracks)[ONE].grid
    assert np.allclose(grid.times, [t for t in CLICKS if t != 7.0], atol=0.011)
    assert grid.places[grid.times.searchsorted(5.45)] == 2


def clicks_of(page: Any, quiet: list[float]) -> list[int]:
    """Samples at which the buffer that is played last differs from one without clicks begins to."""
    sound = page.evaluate("window.played.at(-1)")
    difference = np.abs(np.array(sound["samples"]) - np.array(quiet)) > 1e-4
    starts = np.flatnonzero(difference)
    return [int(s) for i, s in enumerate(starts) if i == 0 or s - starts[i - 1] > 0.1 * sound["rate"]]


def test_clicks_are_on_the_sample_of_the_beat(browser: Any, folder: Path, tmp_path: Path) -> None:
    with visiting(browser, reviewed(folder, tmp_path / "review")) as page:
        page.locator("#clicks").select_option("none")
        card = place(page, DOUBTS[0])
        card.locator(".play").click()
        until(lambda: page.evaluate("window.played.length") == 1)
        quiet = page.evaluate("window.played[0].samples")
        rate, start = page.evaluate("window.played[0].rate"), float(card.get_attribute("data-start"))
        onset = round((4.0 - start) * rate)
        heard = np.abs(quiet)
        assert heard[onset - 240 : onset - 24].max() < 0.2 * heard[onset : onset + 240].max()
        page.locator("#clicks").select_option("annotated")
        until(lambda: page.evaluate("window.played.length") == 2)
        late = [t + 0.1 * (t == 4.0) for t, _ in BEATS if start <= t < start + 6]
        assert np.allclose(clicks_of(page, quiet), [(t - start) * rate for t in late], atol=2)
        page.locator("#clicks").select_option("decided")
        until(lambda: page.evaluate("window.played.length") == 3)
        card.locator(".suggest").click()
        card.locator(".suggest").click()
        until(lambda: page.evaluate("window.played.length") == 4)
        right = [t for t, _ in BEATS if start <= t < start + 6]
        assert np.allclose(clicks_of(page, quiet), [(t - start) * rate for t in right], atol=2)
        assert card.locator(".play").inner_text() == "Stop"
        page.keyboard.press(" ")
        assert card.locator(".play").inner_text() == "Play"


def test_decisions_of_a_track_are_seen_on_all_its_cards(browser: Any, folder: Path, tmp_path: Path) -> None:
    with visiting(browser, reviewed(folder, tmp_path / "review", show_guess=True)) as page:
        lacking, wrong = place(page, DOUBTS[1]), place(page, DOUBTS[3])
        assert lacking.locator(".mark.guess").count() == 1, "asked for, suggestions are shown at once"
        assert lacking.locator(".drop").count() == 0
        wrong.locator(".suggest").click()
        assert lacking.locator(".mark.off").count() == 1
        assert lacking.locator(".mark.new").count() == 1
        field = lacking.locator(".time")
        field.fill("5,02")
        assert "too close to another beat" in lacking.locator(".label").inner_text()
        field.fill("noon")
        assert field.evaluate("field => field.validationMessage") == "seconds with a decimal point: 12.345"
        field.fill("5.5")
        assert lacking.locator(".label").inner_text() == "add at 5.500"
        page.locator("#order").select_option("worst")
        order = page.eval_on_selector_all("article", "cards => cards.map((c) => c.dataset.rank)")
        assert order == ["0", "1", "2", "3", "4"]


def test_the_page_of_labels_keeps_and_saves(browser: Any, folder: Path, tmp_path: Path) -> None:
    tracks = open_dataset(folder, DataConfig(), METERS, labelled=False).tracks
    (tmp_path / "review.html").write_text(
        Review("Labels", ("3", "4"), [Item(t) for t in tracks]).to_html(tmp_path)
    )
    with visiting(browser, tmp_path / "review.html") as page:
        page.locator("select").first.select_option("3")
        page.locator(".other").last.fill("3,4")
        page.locator(".comment").last.fill("both")
        page.reload()
        assert page.locator("#count").inner_text() == "2 of 2 decided"
        rows = saved(page)
    assert [(r["id"], r["new label"], r["comment"]) for r in rows] == [(ONE, "3", ""), (TWO, "3,4", "both")]
