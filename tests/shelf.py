"""A stand-in for the network: a shelf of audio files on disk that is searched and downloaded from, with its
faults.

`shelf.json` in the folder maps a query to what a search finds. The bytes that are served are real audio, or
half of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beatmeter.datasets.wikimeter.downloader import Candidate, DownloadError, Fetched
from beatmeter.errors import DataError


@dataclass(frozen=True)
class Shelf:
    """A Downloader over a folder. Every fetch is appended to `fetched.log`."""

    folder: Path

    @classmethod
    def of(cls, folder: Path, **queries: Sequence[dict[str, Any]]) -> Shelf:
        """A shelf with these answers to queries. An item has url, title, seconds (as claimed), file, licence,
        uploader, and `fault`: dead, half, stop (Ctrl-C) or die (kill -9)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "shelf.json").write_text(json.dumps(queries), encoding="utf-8")
        return cls(folder)

    @property
    def log(self) -> list[str]:
        """The addresses that were fetched, in order."""
        path = self.folder / "fetched.log"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _items(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = json.loads(
            (self.folder / "shelf.json").read_text(encoding="utf-8")
        )
        return found

    def require(self) -> None:
        if not (self.folder / "shelf.json").exists():
            raise DataError("there is no shelf", "Make one.")

    def search(self, query: str, limit: int) -> Sequence[Candidate]:
        items = self._items().get(query, [])
        if any(item.get("fault") == "offline" for item in items):
            raise DownloadError("no route to host")
        return [Candidate(item["url"], item.get("title", ""), item.get("seconds")) for item in items][:limit]

    def fetch(self, url: str, folder: Path, longest: float) -> Fetched:
        with (self.folder / "fetched.log").open("a", encoding="utf-8") as log:
            log.write(url + "\n")
        item = next(item for items in self._items().values() for item in items if item["url"] == url)
        fault = item.get("fault")
        if fault == "dead":
            raise DownloadError("HTTP Error 404: Not Found")
        data = (self.folder / item["file"]).read_bytes()
        path = folder / f"audio{Path(item['file']).suffix}"
        path.write_bytes(data[: len(data) // 2] if fault in ("half", "stop", "die") else data)
        if fault == "stop":
            raise KeyboardInterrupt
        if fault == "die":
            os._exit(9)
        return Fetched(path, item.get("title", ""), item.get("uploader", ""), item.get("licence", ""))
