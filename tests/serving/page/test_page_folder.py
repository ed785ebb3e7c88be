"""`beatmeter page`: the folder that it writes, and how it comes by onnxruntime-web."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatmeter.cli import cli
from beatmeter.errors import BeatmeterError, ConfigError, RunError
from beatmeter.serving.page import runtime
from beatmeter.serving.page.build import page_files, read_page, static_files, write_page
from beatmeter.serving.page.runtime import cache_folder, get_runtime


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm archive of two small files, whose hashes are the pinned ones."""
    path, pinned = tmp_path / "onnxruntime-web.tgz", {}
    with tarfile.open(path, "w:gz") as file:
        for name, (member, _) in runtime.FILES.items():
            data = f"the file {member}".encode()
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
            pinned[name] = (member, hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(runtime, "FILES", pinned)
    return path


def page(*words: object) -> Result:
    return CliRunner().invoke(cli, ["page", *map(str, words)])


def test_the_folder_is_whole_and_can_be_read_back(loudness: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    result = page(loudness, "--out", out, "--no-beats", "--runtime", archive)
    assert result.exception is None
    assert f"{out}: " in result.stderr
    found = read_page(out)
    assert set(static_files()) < set(found)
    assert {"model/model.json", "model/front.onnx", "runtime/LICENSE.txt"} < set(found)
    assert zlib.decompress(found["runtime/ort.wasm.packed"]).startswith(b"the file ")
    assert json.loads(found["page.json"])["beats"] is False
    assert b"MIT License" in found["runtime/LICENSE.txt"]
    archive.unlink()
    (out / "runtime" / "ort.wasm").write_bytes(b"of an older page")
    again = page(loudness, "--out", out, "--no-beats")  # from the cache, over the older page
    assert again.exception is None
    assert read_page(out) == found
    assert not (out / "runtime" / "ort.wasm").exists()


def test_beats_lie_beside_the_model_and_neither_is_taken_for_the_other(
    loudness: Path, clicking: Path, tmp_path: Path
) -> None:
    files = page_files(loudness, {}, clicking)
    assert json.loads(files["page.json"])["beats"] is True
    write_page(files, tmp_path / "site")
    assert read_page(tmp_path / "site") == files
    write_page(page_files(loudness, {}), tmp_path / "site")
    assert not list((tmp_path / "site" / "beats").iterdir())
    with pytest.raises(RunError, match="holds no model of beats"):
        page_files(loudness, {}, changed(loudness, tmp_path / "meter", kind="classes"))
    with pytest.raises(RunError, match="holds no model of meter"):
        page_files(clicking, {}, clicking)


def changed(exported: Path, folder: Path, **values: str) -> Path:
    """A copy of an exported model whose model.json says something else."""
    shutil.copytree(exported, folder)
    about = json.loads((folder / "model.json").read_text()) | values
    (folder / "model.json").write_text(json.dumps(about))
    return folder


def test_a_folder_that_holds_something_else_is_left_alone(loudness: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something else"):
        write_page(page_files(loudness, {}), tmp_path / "site")


def test_offline_it_says_how_to_bring_the_file(loudness: Path, tmp_path: Path) -> None:
    refused = "http://127.0.0.1:9/onnxruntime-web.tgz"  # nobody listens there
    result = page(loudness, "--out", tmp_path / "site", "--runtime", refused)
    assert isinstance(result.exception, ConfigError)
    assert "cannot fetch" in str(result.exception)
    assert "Connection refused" in str(result.exception)
    assert "--runtime FILE" in str(result.exception)
    assert not (tmp_path / "site").exists()


def test_another_version_is_refused_and_not_kept(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = {name: (member, "0" * 64) for name, (member, _) in runtime.FILES.items()}
    monkeypatch.setattr(runtime, "FILES", pinned)
    with pytest.raises(ConfigError, match=f"is not that of version {runtime.VERSION}"):
        get_runtime(str(archive))
    assert not cache_folder().exists()


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"words", lambda b: b""])
def test_a_damaged_archive_is_one_line(archive: Path, damage) -> None:  # type: ignore[no-untyped-def]
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ConfigError, match="is not the npm archive"):
        get_runtime(str(archive))


def test_a_damaged_cache_is_filled_again(archive: Path) -> None:
    good = get_runtime(str(archive))
    (cache_folder() / "ort.wasm").write_bytes(b"cut")
    assert get_runtime(str(archive)) == good
    assert (cache_folder() / "ort.wasm").read_bytes() == good["ort.wasm"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "back.onnx").write_bytes(b"other"), "is not the file that model.json names"),
        (lambda f: (f / "front.onnx").unlink(), "there is no file"),
        (lambda f: (f / "model.json").write_text('{"format": 2}'), "has the format 2, not 1"),
        (lambda f: (f / "model.json").write_text('{"format": 1}'), "lacks classes"),
        (lambda f: (f / "model.json").write_text("{"), "model.json"),
    ],
)
def test_a_model_that_is_not_whole_makes_no_page(loudness: Path, tmp_path: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "exported"
    shutil.copytree(loudness, folder)
    change(folder)
    with pytest.raises(BeatmeterError, match=words):
        page_files(folder, {})


def test_what_is_no_page_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("another page")
    result = CliRunner().invoke(cli, ["serve", str(tmp_path)])
    assert isinstance(result.exception, RunError)
    assert "is no folder of a page" in str(result.exception)
    assert "beatmeter page --out" in str(result.exception)
    (tmp_path / "index.html").unlink()
    for name in ("model.json", "front.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(
        RunError, match=r"It holds a model: make a page of it with beatmeter page .* --out DIR"
    ):
        read_page(tmp_path)
