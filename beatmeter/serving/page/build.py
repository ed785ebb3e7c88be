"""The folder of a page: our static files, exported models, and what computes them in the browser."""

from __future__ import annotations

import hashlib
import json
import zlib
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
PLACES = ("model", "beats", "runtime")
ENGINE, PACKED = "ort.wasm", "ort.wasm.packed"  # the name says nothing to web servers, which would unpack it
SHARED = ("sample_rate", "chunk", "frame", "states", "graphs")
KEYS = {
    "classes": ("classes", *SHARED, "window", "rows", "thresholds", "stream"),
    "curves": (*SHARED, "row"),
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".packed": "application/octet-stream",
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


def read_exported(folder: Path, kind: str = "classes") -> tuple[dict[str, Any], dict[str, bytes]]:
    """model.json of an exported model of this kind, and its files by name. Raises RunError when they do not
    fit together."""
    hint = "Make the folder again: beatmeter export MODEL --out DIR"
    about = read_json(folder / ABOUT, RunError, hint)
    if about.get("format") != FORMAT:
        raise RunError(f"{shown(folder / ABOUT)} has the format {about.get('format')}, not {FORMAT}", hint)
    if about.get("kind", kind) != kind:
        wanted = "a model of meter" if kind == "classes" else "a model of beats"
        raise RunError(f"{shown(folder)} holds no {wanted[2:]}", f"Name {wanted} here.")
    missing = [key for key in KEYS[kind] if key not in about]
    if missing:
        raise RunError(f"{shown(folder / ABOUT)} lacks {missing[0]}", hint)
    files = {ABOUT: read_bytes(folder / ABOUT)}
    for graph in about["graphs"].values():
        data = read_bytes(folder / graph["file"], RunError, hint, LARGEST)
        if hashlib.sha256(data).hexdigest() != graph["sha256"]:
            raise RunError(f"{shown(folder / graph['file'])} is not the file that {ABOUT} names", hint)
        files[graph["file"]] = data
    return about, files


def page_files(exported: Path, runtime: Mapping[str, bytes], beats: Path | None = None) -> dict[str, bytes]:
    """All files of a page by their path in its folder; `beats` is an exported model of beats. Raises
    RunError for a model that is not whole."""
    _, model = read_exported(exported)
    engine = {PACKED if name == ENGINE else name: _packed(name, data) for name, data in runtime.items()}
    files = {
        **{f"model/{name}": data for name, data in model.items()},
        **{f"runtime/{name}": data for name, data in engine.items()},
    }
    if beats is not None:
        files |= {f"beats/{name}": data for name, data in read_exported(beats, "curves")[1].items()}
    size = sum(len(data) for path, data in files.items() if not path.endswith((".json", ".mjs")))
    about = {"beats": beats is not None, "bytes": size}
    return {
        **static_files(),
        **files,
        "page.json": json.dumps(about).encode(),
        "runtime/LICENSE.txt": LICENCE.encode(),
    }


def _packed(name: str, data: bytes) -> bytes:
    """WebAssembly takes a quarter of its size; the page unpacks it."""
    return zlib.compress(data, 9) if name == ENGINE else data


def write_page(files: Mapping[str, bytes], out: Path) -> None:
    """Write the files of a page to the folder `out`, which is new, empty or an older page. Raises RunError
    when it holds something else."""
    known = {*PLACES, *(path.split("/")[0] for path in files)}
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - known):
        raise RunError(f"{shown(out)} holds something else", "Choose a new folder with --out.")
    older = (out / "index.html").is_file() and (out / "model" / ABOUT).is_file()
    for path, data in files.items():
        atomic.write_bytes(out / path, data)
    if older:  # what that page had and this one has not
        for file in (file for place in PLACES for file in (out / place).glob("*")):
            if file.relative_to(out).as_posix() not in files and file.suffix in (*TYPES, ".wasm"):
                file.unlink()


def read_page(folder: Path) -> dict[str, bytes]:
    """The files of a page that `write_page` wrote, by their path. Raises RunError when it is none."""
    hint = f"Make it again: beatmeter page --out {shown(folder)}"
    if is_exported(folder):
        hint = f"It holds a model: make a page of it with beatmeter page {shown(folder)} --out DIR"
    about = folder / "model" / ABOUT
    if not (folder / "index.html").is_file() or not about.is_file():
        raise RunError(f"{shown(folder)} is no folder of a page", hint)
    found = {}
    for place in (folder, *(folder / name for name in PLACES if (folder / name).is_dir())):
        for file in sorted(p for p in place.iterdir() if p.is_file() and p.suffix in TYPES):
            found[file.relative_to(folder).as_posix()] = read_bytes(file, RunError, hint, LARGEST)
    return found
