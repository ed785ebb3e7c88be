"""A page whose model hears loudness, 3 4 5 7 from soft to loud, and visits to it in a browser."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from waiting import PATIENCE, until

from beatmeter.serving.page.server import PageServer
from beatmeter.tasks.structure.decoding import PointerSettings

SPY = Path(__file__).parent / "serving" / "page" / "spy.js"
RATE = 24_000
LOUD = {"3": 0.1, "4": 0.28, "5": 0.5, "7": 0.9}  # amplitude of a sine that the model hears as the meter
ABOUT: dict[str, Any] = {
    "format": 1,
    "model": "loudness",
    "version": "0",
    "classes": list(LOUD),
    "sample_rate": RATE,
    "chunk": {"length": 120_080, "hop": 120_000, "context": 80, "tail": 12_000, "shortest": 24_000},
    "frame": {"hop": 320, "span": 400, "rate": 75.0, "per_chunk": 375},
    "window": {"chunks": 6},
    "states": {"layers": 1, "dim": 1},
    "rows": 1,
    "thresholds": {
        "presence": 0.5,
        "sure": 0.9,
        "shortest_sure": 10.0,
        "second": {"3": 0.6, "4": 0.6, "5": 0.6, "7": 0.6},
    },
    "calibration": {"maps": {}, "presence": {"weights": [1.0], "intercept": 0.0}},
    "stream": {"window": 10.0, "hop": 1.0, "minimum": 1.0, "duration": 30.0},
}
ABOUT_BEATS: dict[str, Any] = {
    **{key: ABOUT[key] for key in ("format", "version", "sample_rate", "frame", "states")},
    "kind": "curves",
    "model": "clicks",
    "names": ["beat", "downbeat"],
    "chunk": {
        "length": 120_080,
        "hop": 96_000,
        "context": 24_080,
        "tail": 320,
        "shortest": 24_000,
        "grid": 320,
    },
    "row": {"frames": 3, "rate": 25.0, "first": 0.5 * 1040 / RATE},
    "stretch": {"seconds": 60.0, "around": 15.0},
    "pointer": asdict(PointerSettings()),
}


def clicks(seconds: float, apart: float, bar: int, rate: int = RATE) -> np.ndarray:
    """(sample,) short noises every `apart` seconds from 0.2 s on, the first of every `bar` louder."""
    wave = np.zeros(round(seconds * rate))
    sound = np.random.default_rng(0).uniform(-1, 1, round(0.03 * rate))
    for i in range(int((seconds - 0.3) / apart)):
        at = round((0.2 + i * apart) * rate)
        wave[at : at + len(sound)] += (0.9 if i % bar == 0 else 0.2) * sound
    return wave


def tone(*parts: tuple[str, float], rate: int = RATE) -> np.ndarray:
    """(sample,) a sine whose loudness stands for a meter ("": silence), for so many seconds each."""
    levels = [np.full(round(s * rate), LOUD.get(meter, 0.0)) for meter, s in parts]
    level = np.concatenate(levels)
    return level * np.sin(2 * np.pi * 440 * np.arange(len(level)) / rate)


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[PageServer]:
    with PageServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


class Visit:
    """A page that is open, and what a test asks of it."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true (a strict policy forbids playwright's own way)."""
        until(lambda: self.page.evaluate(condition))

    def wait_status(self, words: str) -> None:
        self.wait(f"document.querySelector('#status').textContent.includes({json.dumps(words)})")

    def open(self, path: Path) -> None:
        self.page.locator("#file").set_input_files(path)

    def chosen(self) -> list[str]:
        """The names of the bars that stand out."""
        return self.page.locator("#bars .chosen .name").all_inner_texts()

    def segments(self) -> list[str]:
        return self.page.locator("#segments li").all_text_contents()


@contextlib.contextmanager
def visiting(browser: Any, server: PageServer, path: str = "", **options: Any) -> Iterator[Visit]:
    """A page that is loaded. It fails when the page asked any other origin for anything, broke its policy,
    or raised an error."""
    context = browser.new_context(permissions=["microphone"], **options)
    context.set_default_timeout(1000 * PATIENCE)
    asked: list[str] = []
    faults: list[str] = []

    def gate(route: Any) -> None:
        if route.request.url.startswith((server.address, "blob:" + server.address)):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", gate)
    context.add_init_script(path=SPY)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(server.address + path)
    yield Visit(page)
    context.close()
    assert asked == [], "the page asks another origin"
    assert faults == []
