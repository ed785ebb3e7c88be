"""One browser and one server for all tests of the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from pagevisits import ABOUT, ABOUT_BEATS, Visit, serving, tone, visiting

from beatmeter.serving.page.build import page_files
from beatmeter.serving.page.server import PageServer


@pytest.fixture(scope="session")
def loudness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported model, whose graphs only `loudness.mjs` understands."""
    folder = tmp_path_factory.mktemp("exported")
    graphs = {}
    for name in ("front", "back"):
        (folder / f"{name}.onnx").write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        graphs[name] = {"file": f"{name}.onnx", "bytes": len(name), "sha256": digest}
    (folder / "model.json").write_text(json.dumps({**ABOUT, "graphs": graphs}))
    return folder


@pytest.fixture(scope="session")
def clicking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported model of beats, whose graphs only `loudness.mjs` understands."""
    folder = tmp_path_factory.mktemp("exported-beats")
    graphs = {}
    for name, words in (("front", b"front"), ("back", b"back of beats")):
        (folder / f"{name}.onnx").write_bytes(words)
        digest = hashlib.sha256(words).hexdigest()
        graphs[name] = {"file": f"{name}.onnx", "bytes": len(words), "sha256": digest}
    (folder / "model.json").write_text(json.dumps({**ABOUT_BEATS, "graphs": graphs}))
    return folder


@pytest.fixture(scope="session")
def files(loudness: Path) -> dict[str, bytes]:
    """The page of that model."""
    stand_in = Path(__file__).with_name("loudness.mjs").read_bytes()
    return page_files(loudness, {"ort.mjs": stand_in, "ort.wasm": b"not needed"})


@pytest.fixture(scope="session")
def server(files: dict[str, bytes]) -> Iterator[PageServer]:
    with serving(files) as running:
        yield running


@pytest.fixture(scope="session")
def launch(chromium: Callable[..., Any]) -> Callable[[Path], Any]:
    """Starts a browser whose microphone plays a WAV file over and over."""

    def start(sound: Path) -> Any:
        names = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
        return chromium(*names, f"use-file-for-fake-audio-capture={sound}")

    return start


@pytest.fixture(scope="session")
def browser(launch: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One whose microphone hears 4 in a bar."""
    sound = tmp_path_factory.mktemp("microphone") / "four.wav"
    soundfile.write(sound, tone(("4", 10.0), rate=48_000), 48_000)
    started = launch(sound)
    yield started
    started.close()


@pytest.fixture
def visit(browser: Any, server: PageServer) -> Iterator[Visit]:
    with visiting(browser, server) as page:
        page.wait_status("Ready")
        yield page


@pytest.fixture(scope="module")
def ask(browser: Any, server: PageServer) -> Iterator[Callable[..., Any]]:
    """Runs a JavaScript function with one value in an open page; `name` is one of its modules."""
    with visiting(browser, server) as visit:

        def run(name: str, function: str, value: Any = None) -> Any:
            code = f"async (value) => {{ const m = await import('/{name}'); return ({function})(m, value); }}"
            return visit.page.evaluate(code, value)

        yield run
