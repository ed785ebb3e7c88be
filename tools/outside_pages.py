"""Pages of the site that live outside docs/ (README.md, cache/README.md ...; `extra.outside` in mkdocs.yml),
and links to them.

A hook of mkdocs. Relative links count from where a page lies in the repository. A link to a page or an image
of the site becomes a link in the site; one to any other file of the repository becomes text, for the site
holds no such files and knows no address of them. A link that leads nowhere stays, and the strict build ends
with it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"(^(?P<mark>```+)[^\n]*\n.*?^(?P=mark)\s*$)", re.MULTILINE | re.DOTALL)
IMAGES = (".svg", ".png")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the outside pages, and the images beside them."""
    for source, place in config.extra["outside"].items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
        folder = ROOT / source
        if posixpath.dirname(place):  # a page in a folder of its own brings what lies below its own
            for image in sorted(path for path in folder.parent.rglob("*") if path.suffix in IMAGES):
                inside = posixpath.join(posixpath.dirname(place), image.relative_to(folder.parent).as_posix())
                files.append(File.generated(config, inside, abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """The page with its links turned into links of the site."""
    outside: dict[str, str] = config.extra["outside"]
    place = page.file.src_uri
    source = next((name for name, to in outside.items() if to == place), f"docs/{place}")

    def turned(match: re.Match[str]) -> str:
        target = match["target"]
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        lies = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = _in_site(lies, source, place, outside)
        if inside is not None and files.get_file_from_path(inside) is not None:
            there = posixpath.relpath(inside, posixpath.dirname(place) or ".")
            return f"{match['image']}[{match['text']}]({there}{match['anchor'] or ''})"
        if (ROOT / lies).exists():
            return f"{match['text']} (`{lies}`)"
        return match[0]

    parts = FENCE.split(markdown)  # text, fence, its mark, text, ...
    return "".join(
        LINK.sub(turned, part) if n % 3 == 0 else part if n % 3 == 1 else "" for n, part in enumerate(parts)
    )


def _in_site(lies: str, source: str, place: str, outside: dict[str, str]) -> str | None:
    """Where a file of the repository lies in the site; None when nothing of the site is made of it."""
    if lies in outside:
        return outside[lies]
    if lies.startswith("docs/"):
        return lies.removeprefix("docs/")
    folder = posixpath.dirname(source)
    return (
        posixpath.join(posixpath.dirname(place), posixpath.relpath(lies, folder))
        if lies.startswith(f"{folder}/")
        else None
    )
