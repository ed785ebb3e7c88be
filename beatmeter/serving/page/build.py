"""The folder of a page: our static files, an exported model, and what computes it in the browser."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from beatmeter.errors import RunError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_bytes, read_json
from beatmeter.serving.page.runtime import LICENCE

ABOUT = "model.json"
FORMAT = 1
LARGEST = 1 << 30  # bytes of a graph
PLACES = ("model", "runtime")
KEYS = (
    "classes", "sample_rate", "chunk", "frame", "window", "states", "rows", "thresholds", "stream", "graphs"
)  # fmt: skip
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
}


def static_files() -> dict[str, bytes]:
    """The files of the page that are the same for every model, by name."""
    folder = resources.files(__package__).joinpath("static")
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir(), key=lambda f: f.name) if f.is_file()}


def is_exported(folder: Path) -> bool:
    """Whether this is a folder of `beatmeter export`."""
    return (folder / ABOUT).is_file() and (folder / "front.onnx").is_file()


def read_exported(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """model.json of an exported model, and its files by name. Raises RunError when they do not fit
    together."""
    hint = "Make the folder again: beatmeter export MODEL --out DIR"
    about = read_json(folder / ABOUT, RunError, hint)
    missing = [key for key in KEYS if key not in about]
    other = about.get("format") != FORMAT
    if other or missing:
        what = f"has the format {about.get('format')}, not {FORMAT}" if other else f"lacks {missing[0]}"
        raise RunError(f"{shown(folder / ABOUT)} {what}", hint)
    files = {ABOUT: read_bytes(folder / ABOUT)}
    for graph in about["graphs"].values():
        data = read_bytes(folder / graph["file"], RunError, hint, LARGEST)
        if hashlib.sha256(data).hexdigest() != graph["sha256"]:
            raise RunError(f"{shown(folder / graph['file'])} is not the file that {ABOUT} names", hint)
        files[graph["file"]] = data
    return about, files


def page_files(exported: Path, runtime: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of a page by their path in its folder. Raises RunError for a model that is not whole."""
    _, model = read_exported(exported)
    return {
        **static_files(),
        **{f"model/{name}": data for name, data in model.items()},
        **{f"runtime/{name}": data for name, data in runtime.items()},
        "runtime/LICENSE.txt": LICENCE.encode(),
    }


def write_page(files: Mapping[str, bytes], out: Path) -> None:
    """Write the files of a page to the folder `out`, which is new, empty or an older page. Raises RunError
    when it holds something else."""
    known = {path.split("/")[0] for path in files}
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - known):
        raise RunError(f"{shown(out)} holds something else", "Choose a new folder with --out.")
    for path, data in files.items():
        atomic.write_bytes(out / path, data)


def read_page(folder: Path) -> dict[str, bytes]:
    """The files of a page that `write_page` wrote, by their path. Raises RunError when it is none."""
    hint = f"Make it again: beatmeter page --out {shown(folder)}"
    about = folder / "model" / ABOUT
    if not (folder / "index.html").is_file() or not about.is_file():
        raise RunError(f"{shown(folder)} is no folder of a page", hint)
    found = {}
    for place in (folder, *(folder / name for name in PLACES)):
        for file in sorted(p for p in place.iterdir() if p.is_file() and p.suffix in TYPES):
            found[file.relative_to(folder).as_posix()] = read_bytes(file, RunError, hint, LARGEST)
    return found
