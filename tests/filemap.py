"""Pages made from the code: the README's file map and docs/settings.md. `python tests/filemap.py` rewrites them."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- file map: make filemap -->", "<!-- end of file map -->"
OTHERS = {
    ".ci/run": "what every change must pass",
    "Makefile": "demo, test, bench, models, filemap",
    "constraints.txt": "the versions that everything is tested with",
    "pyproject.toml": "packaging, lint, types, import floors",
}


def modules() -> list[Path]:
    """Python files of the package, tests and benchmarks that git knows or would add, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "beatmeter", "benchmarks", "tests"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return sorted(Path(name) for name in listed.split("\0") if name.endswith(".py") and (ROOT / name).exists())


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return first if len(first) <= 140 else first[: first.rfind(" ", 0, 137)].rstrip(",;:") + " ..."


def file_map() -> str:
    """The map as Markdown: one line a file, by folder."""
    lines = [f"* `{name}`: {text}" for name, text in sorted(OTHERS.items())]
    folder = None
    for path in modules():
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"**{folder}/**", ""]
        lines.append(f"* `{path.name}`: {summary(path)}")
    return "\n".join(lines)


def rewritten(readme: str) -> str:
    """The README with the map between its marks renewed."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{file_map()}\n{END}{after}"


def settings_page() -> str:
    """docs/settings.md: every setting with its default and its sentence."""
    from beatmeter.runtime.config import describe
    from beatmeter.settings import RunConfig

    rows = [f"| `{name}` | `{default!r}` | {text} |" for name, default, text in describe(RunConfig())]
    head = "# Settings\n\nChange one with `--set name=value`, several with a recipe (a TOML file that lists differences). Made by `make filemap`.\n\n"
    return head + "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(settings_page(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text(encoding="utf-8")), encoding="utf-8")
