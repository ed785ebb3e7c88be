"""Where audio comes from: an interface with two questions, and yt-dlp behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from beatmeter.errors import BeatmeterError, DataError, shown


class DownloadError(BeatmeterError):
    """A search or a download that failed. It may work another time."""


@dataclass(frozen=True)
class Candidate:
    """Something a search found. `seconds` is None where the source does not say."""

    url: str
    title: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded, and what its source says of it: empty where it says nothing."""

    path: Path
    title: str = ""
    uploader: str = ""
    licence: str = ""


class Downloader(Protocol):
    """Finds and fetches audio. It must be picklable: downloads may run in processes."""

    def require(self) -> None:
        """Raise DataError, with the command that helps, when nothing can be downloaded here."""

    def search(self, query: str, limit: int) -> Sequence[Candidate]:
        """At most `limit` candidates, best first. Raises DownloadError."""

    def fetch(self, url: str, folder: Path, longest: float) -> Fetched:
        """Download one candidate into `folder`, which is empty. Raises DownloadError, also when the source
        says that it is longer than `longest` seconds."""


@dataclass(frozen=True)
class YtDlp:
    """Downloads through yt-dlp. `where` is its search prefix (ytsearch, scsearch); `pause` are seconds before
    each download, out of politeness."""

    where: str = "ytsearch"
    pause: float = 2.0

    def require(self) -> None:
        try:
            import yt_dlp
            from yt_dlp.extractor import gen_extractor_classes
        except ImportError:
            raise DataError(
                "yt-dlp is not installed, and music is downloaded by it", "pip install 'beatmeter[wikimeter]'"
            ) from None
        known = {e.SEARCH_KEY for e in gen_extractor_classes() if getattr(e, "SEARCH_KEY", None)}
        if self.where not in known:
            raise DataError(
                f"yt-dlp {yt_dlp.version.__version__} has no search {self.where!r}",
                f"Known: {', '.join(sorted(known))}.",
            )

    def search(self, query: str, limit: int) -> Sequence[Candidate]:
        """Titles and lengths only: no candidate is opened."""
        found = self._ask(f"{self.where}{limit}:{query}", False, {"extract_flat": True})
        entries = [e for e in found.get("entries") or () if e and e.get("url")]
        return [Candidate(str(e["url"]), _text(e.get("title")), _seconds(e)) for e in entries[:limit]]

    def fetch(self, url: str, folder: Path, longest: float) -> Fetched:
        refusals: list[str] = []

        def refuse(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
            seconds = _seconds(info)
            if info.get("is_live"):
                reason = "it is a live stream"
            elif seconds is not None and seconds > longest:
                reason = f"it lasts {seconds:.0f} s, at most {longest:.0f} s were asked for"
            else:
                return None
            refusals.append(reason)
            return reason

        options = {
            "paths": {"home": str(folder)},
            "outtmpl": {"default": "audio.%(ext)s"},
            "match_filter": refuse,
            "sleep_interval": self.pause,
        }
        info = self._ask(url, True, options)
        files = [Path(d["filepath"]) for d in info.get("requested_downloads") or () if d.get("filepath")]
        if not files or not files[0].is_file():
            raise DownloadError(refusals[-1] if refusals else "yt-dlp gave no file")
        uploader = _text(info.get("uploader")) or _text(info.get("channel")) or _text(info.get("artist"))
        return Fetched(files[0], _text(info.get("title")), uploader, _text(info.get("license")))

    def _ask(self, what: str, download: bool, options: dict[str, Any]) -> dict[str, Any]:
        import yt_dlp

        settings = {
            "format": "bestaudio/best",
            "noplaylist": True,
            "quiet": True,
            "noprogress": True,
            "no_color": True,
            "logger": _Silence(),
            "socket_timeout": 30,
            "overwrites": True,
            **options,
        }
        try:
            with yt_dlp.YoutubeDL(settings) as client:
                info = client.extract_info(what, download=download)
        except yt_dlp.utils.YoutubeDLError as error:
            raise DownloadError(_said(error)) from None
        except OSError as error:
            raise DownloadError(f"{error.strerror or error}") from None
        if not isinstance(info, dict):
            raise DownloadError("yt-dlp gave no answer")
        return info


class _Silence:
    """A logger that keeps yt-dlp's words from the terminal: what matters is raised."""

    def debug(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...


def _said(error: Exception) -> str:
    """yt-dlp's message without its prefix and colours, on one line."""
    return shown(
        re.sub(r"\x1b\[[0-9;]*m|^ERROR: ", "", re.sub(r"\s+", " ", str(error)))
        .removeprefix("ERROR: ")
        .strip()
    )


def _text(value: object) -> str:
    """One line of valid text."""
    return " ".join(str(value).split()).encode("utf-8", "replace").decode() if value else ""


def _seconds(info: dict[str, Any]) -> float | None:
    value = info.get("duration")
    return float(value) if isinstance(value, int | float) else None
