"""Pages made from others: docs/filemap.md, docs/settings.md, and the words that `beatmeter help` explains.
`python tests/filemap.py` rewrites them.

It needs the standard library and git alone, and describes the tree that it lies in, whatever version of the
package is installed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Which file does what

Each folder imports only from floors below its own; `lint-imports` checks it, and the floors are in
`pyproject.toml`.
Made by `make filemap` from the first sentence of each file.
"""
OTHERS = {
    ".ci/run": "what every change must pass",
    "Makefile": "demo, test, docs, bench, models, filemap",
    "mkdocs.yml": "the site: pages, order, plugins",
    "constraints.txt": "the versions that everything is tested with",
    "pyproject.toml": "packaging, lint, types, import floors",
}


def modules() -> list[Path]:
    """Python files of the package, tests and benchmarks that git knows or would add, sorted."""
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "beatmeter",
            "benchmarks",
            "tests",
            "tools",
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return sorted(
        Path(name) for name in listed.split("\0") if name.endswith(".py") and (ROOT / name).exists()
    )


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    try:
        text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    except SyntaxError as error:
        raise SystemExit(f"{path}:{error.lineno}: {error.msg}: mend it, then make the pages again") from None
    first = " ".join(text.split("\n\n")[0].split())
    return first if len(first) <= 140 else first[: first.rfind(" ", 0, 137)].rstrip(",;:") + " ..."


def file_map() -> str:
    """docs/filemap.md: one line a file, by folder."""
    lines = [HEAD, *(f"* `{name}`: {text}" for name, text in sorted(OTHERS.items()))]
    folder = None
    for path in modules():
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"**{folder}/**", ""]
        if sentence := summary(path):
            lines.append(f"* `{path.name}`: {sentence}")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """docs/settings.md: every setting with its default and its sentence."""
    from beatmeter.runtime.config import describe
    from beatmeter.settings import RunConfig

    rows = [f"| `{name}` | `{default!r}` | {text} |" for name, default, text in describe(RunConfig())]
    head = (
        "# Settings\n\nChange one with `--set name=value`, several with a recipe (a TOML file that lists "
        "differences). Made by `make filemap`.\n\n"
    )
    return head + "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def words() -> str:
    """beatmeter/cli/topics/words.tsv: the glossary, a word and its meaning a line."""
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", page, re.MULTILINE)
    return "".join(f"{word}\t{meaning.replace('`', '')}\n" for word, meaning in rows)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    pages = {
        "beatmeter/cli/topics/words.tsv": words(),
        "docs/settings.md": settings_page(),
        "docs/filemap.md": file_map(),
    }
    for name, text in pages.items():
        page = ROOT / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
            print(f"{name} is new: commit it")
