"""Hub ids: the local cache first, the network when needed (a hub on this machine plays its part), a helpful
error when neither has it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hubfolders
import pytest
import torch
from waiting import PATIENCE

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import hub, load_backbone, mert
from beatmeter.settings import MERT_95M, MERT_330M

COMMIT = "1" * 40
SHOW = (
    "import sys, json; from beatmeter.features.backbones import load_backbone; from beatmeter.errors import "
    "BackboneError\n"
    "try:\n"
    "    i = load_backbone(*sys.argv[1:]).identity; print(json.dumps([i.name, i.revision, i.weights]))\n"
    "except BackboneError as error: print('error:', error)"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_in_cache(cache: Path, repo: str, commit: str = COMMIT, **arguments: Any) -> Path:
    """A checkpoint where the hub's client keeps it, on the main branch."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    return hubfolders.write_hub_folder(home / "snapshots" / commit, **arguments)


def test_cached_copy_needs_no_network(cache: Path) -> None:
    folder = put_in_cache(cache, MERT_330M)
    backbone = load_backbone(MERT_330M)
    digest = hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
    assert (backbone.identity.name, backbone.identity.revision, backbone.identity.weights) == (
        MERT_330M,
        COMMIT,
        digest,
    )
    assert backbone.identity.licence == "CC-BY-NC-4.0"
    assert load_backbone(MERT_330M, revision=COMMIT).identity == backbone.identity
    assert load_backbone(MERT_330M, weights=False).identity == backbone.identity


def test_weights_that_are_not_the_published_ones_are_refused(cache: Path) -> None:
    put_in_cache(cache, MERT_95M, mert.KNOWN[MERT_95M].revision, pre_norm=False)
    with pytest.raises(
        BackboneError, match=f"have sha256 [0-9a-f]{{64}}, not the published {mert.KNOWN[MERT_95M].sha256}"
    ):
        load_backbone(MERT_95M)


def test_a_folder_with_the_published_weights_is_that_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it lies: features made from a copy and from the hub share one fingerprint."""
    folder = hubfolders.write_hub_folder(tmp_path / "copy")
    digest = hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
    monkeypatch.setitem(mert.KNOWN, MERT_95M, mert.Known(COMMIT, digest))
    identity = load_backbone(str(folder)).identity
    assert (identity.name, identity.revision, identity.weights) == (MERT_95M, COMMIT, digest)


def test_offline_error_names_the_command_and_the_embedded_backbone(cache: Path) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(MERT_95M)
    said = str(caught.value)
    assert (
        f"hf download {MERT_95M} --revision {mert.KNOWN[MERT_95M].revision} --include 'config.json'" in said
    )
    assert "--set features.backbone=embedded" in said
    assert "\n" not in said
    with pytest.raises(BackboneError, match="Did you mean 'm-a-p/MERT-v1-95M'"):
        load_backbone("m-a-p/MERT-v1-95m")


def test_an_incomplete_copy_in_the_cache_is_no_copy(cache: Path) -> None:
    folder = put_in_cache(cache, MERT_330M)
    assert hub.cached(MERT_330M, "") == folder
    (folder / "pytorch_model.bin").unlink()
    assert hub.cached(MERT_330M, "") is None
    with pytest.raises(BackboneError, match="could not be fetched"):
        load_backbone(MERT_330M)


def test_one_kind_of_weights_is_chosen() -> None:
    settings = ["config.json", "preprocessor_config.json"]
    rest = ["README.md", "small_fairseq.pt", "modeling.py", "pytorch_model.bin"]
    assert hub._choose([*settings, *rest]) == [*settings, "pytorch_model.bin"]
    beats = ["config.json", "beats.safetensors", "model.safetensors"]
    assert hub._choose(beats) == beats, "what hears the beats comes along"
    assert hub._choose(["config.json", *rest, "model.safetensors"]) == ["config.json", "model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert hub._choose(["config.json", "model.safetensors.index.json", *shards]) == [
        "config.json",
        "model.safetensors.index.json",
        *shards,
    ]
    assert hub._choose(rest) == []


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a client needs to fetch one public model."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(f.name for f in self.folder.iterdir())
        if path.startswith("/api/models/someone/small/tree/"):
            self._send(
                json.dumps(
                    [
                        {"type": "file", "path": f, "size": (self.folder / f).stat().st_size, "oid": "a" * 40}
                        for f in files
                    ]
                ).encode()
            )
        elif path.startswith("/api/models/someone/small"):
            about = {
                "_id": "1",
                "id": "someone/small",
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": f} for f in files],
            }
            self._send(json.dumps(about).encode())
        elif (
            path.startswith(f"/someone/small/resolve/{COMMIT}/")
            and (name := path.rpartition("/")[2]) in files
        ):
            if self.command == "GET":
                self.asked.append(name)
            data = (self.folder / name).read_bytes()
            self._send(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})
        else:
            self._send(b"{}", {"X-Error-Code": "RepoNotFound", "X-Repo-Commit": COMMIT}, 404)

    def _send(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    """Address of a hub with the model `someone/small`, and what was fetched from it."""
    folder = hubfolders.write_hub_folder(tmp_path / "published")
    torch.save({"huge": torch.zeros(10)}, folder / "small_fairseq.pt")
    (folder / "modeling.py").write_text("raise SystemExit('code of a checkpoint was run')")
    handler = type("OneHub", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def show(*arguments: str, **environment: str) -> str:
    """What a fresh process gets: the hub's client reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=kept | environment,
        timeout=PATIENCE,
    )
    return done.stdout.strip().splitlines()[-1]


def test_download_takes_only_what_is_needed_and_then_works_offline(
    tmp_path: Path, served: tuple[str, type[Hub]]
) -> None:
    endpoint, handler = served
    environment = {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
    }
    digest = hashlib.sha256((handler.folder / "pytorch_model.bin").read_bytes()).hexdigest()
    assert json.loads(show("someone/small", **environment, HF_ENDPOINT=endpoint)) == [
        "someone/small",
        COMMIT,
        digest,
    ]
    assert sorted(handler.asked) == ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
    handler.asked.clear()
    assert json.loads(
        show("someone/small", **environment | {"HF_HUB_OFFLINE": "1"}, HF_ENDPOINT="http://127.0.0.1:9")
    ) == [
        "someone/small",
        COMMIT,
        digest,
    ]
    assert handler.asked == []
    said = show("someone/other", **environment, HF_ENDPOINT=endpoint)
    assert "the hub has no public model someone/other" in said
    assert "features.backbone=embedded" in said
