"""The terminal sessions in the documents are real: this runs those of docs/tutorial.md and compares what is
printed, or writes it anew.

    python tools/transcripts.py check  # status 1 and the difference, when a command prints something else
    python tools/transcripts.py write  # the pages and docs/img/timeline.svg anew

A session is a block of the language `console`: `$ ` and a command, then what it prints. All run in one empty
folder, in order, on a terminal of 80 columns, with a link `tools` to this folder. Output may begin with
`...`: earlier lines are left out. Numbers with a point and percentages may differ a little from processor to
processor, and hashes are not compared. In a block with a title (`VARIES`) figures may differ at will, and
only how the output begins and ends is compared. The README repeats sessions of the tutorial.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, TUTORIAL, PLOT = (
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    ROOT / "docs" / "img" / "timeline.svg",
)
VARIES = ' title="figures vary with the processor"'
BLOCK = re.compile(
    rf"^```console(?P<title>{re.escape(VARIES)})?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"-?\d+\.\d+|\d+(?= ?%)|(?<=\[)\d+|\d+(?=\])")
HASH = re.compile(r"\b[0-9a-f]{64}\b")
LEFT_OUT = "..."
ROWS, COLUMNS = 50, 80


@dataclass(frozen=True)
class Command:
    """A command of a page, what the page says that it prints, and whether its figures vary."""

    line: str
    output: tuple[str, ...]
    varies: bool


def commands(page: str) -> list[Command]:
    """The commands of a page, in order."""
    found: list[Command] = []
    for block in BLOCK.finditer(page):
        for part in re.split(r"^\$ ", block["body"], flags=re.MULTILINE)[1:]:
            line, *output = part.splitlines()
            found.append(Command(line, tuple(output), block["title"] is not None))
    return found


def printed_by(line: str, folder: Path) -> tuple[str, ...]:
    """What a command prints on a terminal, in lines. Raises CalledProcessError when it fails."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {
        **os.environ,
        "PATH": path,
        "TERM": "dumb",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(
        line,
        shell=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
    )
    os.close(secondary)
    printed = b""
    while True:
        try:
            block = os.read(primary, 1 << 16)
        except OSError:  # Linux says so that nobody has the terminal open any more
            break
        if not block:
            break
        printed += block
    os.close(primary)
    lines = tuple(text.rstrip() for text in printed.decode().replace("\r\n", "\n").splitlines())
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, line, "\n".join(lines))
    return lines


def shortened(command: Command, printed: tuple[str, ...]) -> tuple[str, ...]:
    """What the page shows of the lines that were printed: where it left lines out, as many of the last ones
    as it showed."""
    if command.output[:1] != (LEFT_OUT,):
        return printed
    first = command.output[1].split()[0]
    start = next(
        (n for n, line in enumerate(printed) if line.split()[:1] == [first]),
        len(printed) - len(command.output) + 1,
    )
    return (LEFT_OUT, *printed[start:])


def agree(command: Command, printed: tuple[str, ...]) -> bool:
    """Whether a page says of a command what it prints."""
    shown, wanted = shortened(command, printed), command.output
    if command.varies:
        return [line.split()[:1] for line in (*shown[:2], *shown[-1:])] == [
            line.split()[:1] for line in (*wanted[:2], *wanted[-1:])
        ]
    shown, wanted = (tuple(HASH.sub("hash", line) for line in lines) for lines in (shown, wanted))
    if [NUMBER.sub("#", line).split() for line in shown] != [
        NUMBER.sub("#", line).split() for line in wanted
    ]:
        return False
    pairs = zip(NUMBER.findall("\n".join(shown)), NUMBER.findall("\n".join(wanted)), strict=True)
    return all(abs(float(a) - float(b)) <= 0.06 + 0.02 * abs(float(b)) for a, b in pairs)


def played(folder: Path) -> list[tuple[Command, tuple[str, ...]]]:
    """Every command of the tutorial, run in `folder`, with what it printed."""
    (folder / "tools").symlink_to(ROOT / "tools")
    return [
        (command, printed_by(command.line, folder))
        for command in commands(TUTORIAL.read_text(encoding="utf-8"))
    ]


def rewritten(page: str, sessions: dict[str, tuple[str, ...]]) -> str:
    """The page with what each command printed (`sessions`, by command line)."""

    def block(match: re.Match[str]) -> str:
        parts = commands(match[0])
        body = "".join("\n".join([f"$ {c.line}", *shortened(c, sessions[c.line])]) + "\n" for c in parts)
        return f"```console{match['title'] or ''}\n{body}```"

    return BLOCK.sub(block, page)


def main(arguments: list[str]) -> int:
    """`check` or `write`; the exit status."""
    if arguments not in (["check"], ["write"]):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        sessions = played(Path(name))
        if arguments == ["write"]:
            shutil.copy(Path(name) / "timeline.svg", PLOT)
            for page in (README, TUTORIAL):
                page.write_text(
                    rewritten(page.read_text(encoding="utf-8"), {c.line: lines for c, lines in sessions}),
                    encoding="utf-8",
                )
            return 0
    wrong = [(command, lines) for command, lines in sessions if not agree(command, lines)]
    for command, lines in wrong:
        print(
            "\n".join(
                [
                    f"$ {command.line}",
                    *(f"- {line}" for line in command.output),
                    *(f"+ {line}" for line in shortened(command, lines)),
                ]
            )
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
