"""What a visitor does with the page, in a browser: play, open files, stop, tap, choose, share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pagevisits import LOUD, RATE, Visit, clicks, serving, tone, visiting

from beatmeter.serving.page.build import page_files
from beatmeter.serving.page.server import PageServer


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """95 s, 5 in a bar from 0:45 on: longer than the window of the model, stereo, at another rate."""
    path = tmp_path_factory.mktemp("sound") / "long.wav"
    wave = tone(("3", 45.0), ("5", 50.0), rate=16_000)
    soundfile.write(path, np.stack([wave, wave], axis=1), 16_000)
    return path


def test_the_microphone_is_heard_until_stop_and_nothing_alters_its_sound(visit: Visit) -> None:
    visit.page.click("#listen")
    visit.wait("document.querySelector('#words').textContent === '4 in a bar'")
    assert visit.page.evaluate("spied[0].wanted.audio") == {
        "echoCancellation": False,
        "noiseSuppression": False,
        "autoGainControl": False,
    }
    assert visit.chosen() == ["4"]  # the headline and the bars are of one answer
    visit.wait("document.querySelectorAll('#segments li').length === 1")
    visit.page.click("#stop")
    visit.wait_status("Stopped at")
    assert visit.page.evaluate("spied[0].stream.getTracks().map((t) => t.readyState)") == ["ended"]
    assert not visit.page.locator("#stop").is_visible()
    assert visit.text("#words") == "4 in a bar"
    assert visit.text("#announce") == "4 in a bar, likely"


def test_a_file_ends_the_microphone_and_keeps_its_own_answer(visit: Visit, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "seven.wav", tone(("7", 12.0)), RATE)
    visit.page.click("#listen")
    visit.wait("document.querySelector('#words').textContent === '4 in a bar'")
    visit.open(tmp_path / "seven.wav")
    visit.wait_status("all of it")
    assert visit.page.evaluate("spied[0].stream.getTracks().map((t) => t.readyState)") == ["ended"]
    assert (visit.text("#words"), visit.chosen(), visit.text("#sureness")) == ("7 in a bar", ["7"], "sure")
    assert visit.segments() == ["0:00 to 0:12: 7 in a bar"]


def test_a_file_is_heard_to_its_end_and_where_the_meter_changes_is_shown(
    visit: Visit, long_file: Path
) -> None:
    visit.open(long_file)
    visit.wait_status("long.wav: 1:35, all of it")
    (first, second), mean = visit.segments(), (45 * LOUD["3"] + 50 * LOUD["5"]) / 95 * 2 / np.pi
    assert first.startswith("0:00 to 0:4")
    assert first.endswith("3 in a bar")
    assert second.endswith("to 1:35: 5 in a bar")
    assert 0.12 < mean < 0.24  # of the whole file: the model hears 4 in its mean loudness
    assert visit.text("#words") == "4 in a bar"
    box = visit.page.locator("#timeline").bounding_box()
    visit.page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 20)
    visit.wait("Math.abs(document.querySelector('#player').currentTime - 76) < 2")
    visit.wait("document.querySelector('#segments .current')?.textContent.endsWith('5 in a bar')")


def test_a_file_can_be_stopped_and_no_late_word_of_it_comes(visit: Visit, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hour.wav", np.tile(tone(("5", 10.0), rate=8000), 90), 8000)
    visit.open(tmp_path / "hour.wav")
    visit.wait("document.querySelector('#words').textContent === '5 in a bar'")
    visit.page.keyboard.press("Escape")
    visit.wait_status("Stopped at")
    said = visit.text("#status")
    soundfile.write(tmp_path / "three.wav", tone(("3", 11.0)), RATE)
    visit.open(tmp_path / "three.wav")
    visit.wait_status("three.wav: 0:11, all of it")
    assert said != visit.text("#status")
    assert visit.text("#words") == "3 in a bar"


@pytest.mark.parametrize(
    ("name", "wave", "words"),
    [
        ("noise.wav", np.full(12 * RATE, 0.001), None),
        ("silent.wav", np.zeros(3 * RATE), "silent.wav is silent."),
        ("short.wav", np.ones(100) / 2, "short.wav is shorter than a second."),
        ("nan.wav", np.full(3 * RATE, np.nan), "nan.wav is damaged"),
    ],
)
def test_what_cannot_be_heard_is_said(
    visit: Visit, tmp_path: Path, name: str, wave: np.ndarray, words: str | None
) -> None:
    soundfile.write(tmp_path / name, wave, RATE, subtype="FLOAT")
    visit.open(tmp_path / name)
    if words is None:
        visit.wait_status("all of it")
        assert (visit.text("#words"), visit.chosen(), visit.text("#sureness")) == (
            "no meter heard",
            ["none"],
            "",
        )
        return
    visit.wait("!document.querySelector('#problem').hidden")
    assert visit.text("#problem").startswith(words)
    assert visit.text("#words") == ""


def test_a_file_that_is_no_sound_is_refused_and_the_next_one_is_heard(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "words.mp3").write_text("these are words")
    visit.open(tmp_path / "words.mp3")
    visit.wait("!document.querySelector('#problem').hidden")
    assert "no sound file" in visit.text("#problem")
    soundfile.write(tmp_path / "music.flac", tone(("5", 11.0), rate=44_100), 44_100)
    visit.open(tmp_path / "music.flac")
    visit.wait_status("all of it")
    assert visit.text("#words") == "5 in a bar"
    assert not visit.page.locator("#problem").is_visible()


def test_taps_are_compared_with_the_meter_by_keys_alone(visit: Visit, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "three.wav", tone(("3", 11.0)), RATE)
    visit.open(tmp_path / "three.wav")
    visit.wait_status("all of it")
    visit.page.locator("#tapping summary").focus()
    visit.page.keyboard.press("Enter")
    for key in "1tt1tt1":
        visit.page.keyboard.press(key)
    assert "You tap 3 in a bar: so does the model." in visit.text("#tapped")
    assert "beats a minute" in visit.text("#tapped")
    assert visit.page.locator("#places span").all_inner_texts() == ["1", "2", "3"]
    visit.page.click("#tapClear")
    for button in ("#tapOne", "#tap", "#tap", "#tap", "#tapOne"):
        visit.page.click(button)
    assert "You tap 4 in a bar, the model hears 3." in visit.text("#tapped")


def test_settings_travel_in_a_link_and_sound_does_not(
    browser: Any, server: PageServer, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "private.wav", tone(("3", 11.0)), RATE)
    with visiting(browser, server, "#lang=de&theme=dark&window=20&calm=90&lang2=x&file=y") as visit:
        visit.wait_status("Bereit")
        assert visit.page.evaluate("document.documentElement.lang") == "de"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
        visit.open(tmp_path / "private.wav")
        visit.wait_status("vollständig")
        assert visit.text("#words") == "3 Schläge im Takt"
        visit.page.click("#settings summary")
        visit.page.select_option("#choose-lang", "es")
        visit.page.click("#share")
        visit.wait("document.querySelector('#link').textContent.includes('http')")
        link = visit.text("#link").split()[-1]
        assert link == f"{server.address}#lang=es&theme=dark&window=20&calm=90"


def test_every_text_is_there_in_every_language_with_the_same_gaps(visit: Visit) -> None:
    table = visit.page.evaluate("import('/texts.js').then((m) => m.TEXTS)")
    used = visit.page.evaluate("Array.from(document.querySelectorAll('[data-text]'), (e) => e.dataset.text)")
    assert set(used) <= set(table)
    for key, texts in table.items():
        assert len(texts) == 3, key
        assert all(texts), key
        gaps = {tuple(sorted(re.findall(r"\{\w+\}", text))) for text in texts}
        assert len(gaps) == 1, key


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_and_nothing_moves_that_should_not(
    browser: Any, server: PageServer, long_file: Path, scheme: str
) -> None:
    size = {"width": 360, "height": 740}
    with visiting(browser, server, viewport=size, color_scheme=scheme, reduced_motion="reduce") as visit:
        visit.wait_status("Ready")
        visit.open(long_file)
        visit.wait_status("all of it")
        for details in ("#tapping", "#settings"):
            visit.page.click(f"{details} summary")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
        moves = "Array.from(document.querySelectorAll('*'), (e) => getComputedStyle(e).transitionDuration)"
        assert set(visit.page.evaluate(moves)) == {"0s"}
        small = (
            "Array.from(document.querySelectorAll('button, select')).filter((e) => e.checkVisibility() && "
            "e.getBoundingClientRect().height < 44).map((e) => e.id)"
        )
        assert visit.page.evaluate(small) == []  # for fingers
        nameless = (
            "Array.from(document.querySelectorAll('button, select, svg, audio')).filter((e) => "
            "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.id)"
        )
        assert visit.page.evaluate(nameless) == []


def test_beats_and_bars_light_up_with_a_recording_and_with_the_microphone(
    launch: Callable[[Path], Any], loudness: Path, clicking: Path, tmp_path: Path
) -> None:
    stand_in = Path(__file__).with_name("loudness.mjs").read_bytes()
    files = page_files(loudness, {"ort.mjs": stand_in, "ort.wasm": b"not needed"}, clicking)
    soundfile.write(tmp_path / "three.wav", clicks(24.0, 0.5, 3), RATE)
    soundfile.write(tmp_path / "four.wav", clicks(30.0, 0.4, 4, rate=48_000), 48_000)
    lit = "document.querySelector('#lights .lit')?.textContent"
    dots = "document.querySelectorAll('#lights span').length"
    browser = launch(tmp_path / "four.wav")
    with serving(files) as server, visiting(browser, server) as visit:
        visit.wait_status("Ready")
        assert not visit.page.locator("#beats").is_visible()
        visit.open(tmp_path / "three.wav")
        visit.wait_status("all of it")
        assert visit.text("#pulse") == "120 beats a minute. Play the recording to see its beats."
        visit.page.check("#click")
        visit.page.evaluate("void document.querySelector('#player').play()")
        for place in ("1", "2", "3", "1"):
            visit.wait(f"{lit} === '{place}' && {dots} === 3")
        assert visit.page.locator("#lights .lit").get_attribute("class") == "lit one"
        visit.page.click("#listen")
        visit.wait(f"document.querySelector('#pulse').textContent.startsWith('150 beats') && {dots} === 4")
        visit.wait(f"{lit} === '1'")
        visit.wait(f"{lit} === '2'")
        visit.page.click("#stop")
        visit.wait(f"{dots} === 0")
    browser.close()


def test_a_model_file_that_was_changed_is_not_heard_with(browser: Any, files: dict[str, bytes]) -> None:
    with serving({**files, "model/back.onnx": b"other"}) as server, visiting(browser, server) as visit:
        visit.wait("!document.querySelector('#problem').hidden")
        assert "back.onnx is not the one that belongs here" in visit.text("#problem")
        assert visit.page.locator("#listen").is_disabled()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (
            "navigator.mediaDevices.getUserMedia = () => "
            "Promise.reject(new DOMException('no', 'NotAllowedError'))",
            "The microphone was not allowed.",
        ),
        (  # as in Firefox where there is no output; what waits for it does so no longer
            "AudioContext.prototype.resume = () => new Promise(() => (window.setTimeout = (f) => f())); "
            "Object.defineProperty(AudioContext.prototype, 'state', { value: 'suspended' })",
            "This browser does not start the machine's sound.",
        ),
    ],
)
def test_without_a_microphone_files_are_still_heard(visit: Visit, broken: str, words: str) -> None:
    visit.page.evaluate(f"() => {{ {broken} }}")
    visit.page.click("#listen")
    visit.wait("!document.querySelector('#problem').hidden")
    assert visit.text("#problem").startswith(words)
    assert visit.page.locator("#open").is_enabled()
    ended = "spied.every((s) => s.stream.getTracks()[0].readyState === 'ended')"
    assert visit.page.evaluate(ended)
