"""beatmeter help"""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from beatmeter.cli.options import columns
from beatmeter.errors import ConfigError, nearest
from beatmeter.runtime.display import fill, width_of

TOPICS = Path(__file__).parent / "topics"
WORDS = TOPICS / "words.tsv"  # of docs/glossary.md, by `make filemap`


@cache
def topics() -> dict[str, str]:
    """The pages by name; the first line of each is its title."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(TOPICS.glob("*.md"))}


@cache
def glossary() -> dict[str, str]:
    """The words of the glossary, each with its meaning."""
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return {word: meaning for word, _, meaning in (line.partition("\t") for line in lines)}


def _complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    root = context.find_root().command
    names = [*topics(), *(root.list_commands(context) if isinstance(root, click.Group) else ())]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("help")
@click.argument("topic", nargs=-1, shell_complete=_complete)
@click.pass_context
def show_help(context: click.Context, topic: tuple[str, ...]) -> None:
    """Explain a TOPIC, a command, or a word of the glossary; without one, list what there is.

    \b
    beatmeter help
    beatmeter help training
    beatmeter help data synth
    beatmeter help lag pooling
    """
    if not topic:
        click.echo(_overview(context), nl=False)
        return
    name = " ".join(topic).lower()
    found = [
        *_word(name),
        *([_page(topics()[name])] if name in topics() else []),
        *_command(context, [part.lower() for part in topic]),
    ]
    if not found:
        raise ConfigError(f"there is no topic {name!r}", _nearest(context, name))
    click.echo("\n".join(found), nl=False)


def _nearest(context: click.Context, name: str) -> str:
    root = context.find_root().command
    commands = root.list_commands(context) if isinstance(root, click.Group) else []
    near = nearest(name, {*topics(), *glossary(), *commands})
    return f"{near} `beatmeter help` lists all." if near.startswith("Did") else "`beatmeter help` lists all."


def _overview(context: click.Context) -> str:
    """Topics with their titles, and the names of commands and words."""
    width = max(map(len, topics()))
    lines = ["beatmeter help TOPIC", ""]
    lines += [f"  {fill(name, width)}  {text.splitlines()[0]}" for name, text in topics().items()]
    root = context.find_root().command
    assert isinstance(root, click.Group)
    commands = [name for name in root.list_commands(context) if name != "help"]
    lines += ["", *_paragraph(f"Commands: {', '.join(commands)}."), ""]
    whole = (word.replace(" ", "\N{NO-BREAK SPACE}") for word in glossary())
    lines += [line.replace("\N{NO-BREAK SPACE}", " ") for line in _paragraph(f"Words: {', '.join(whole)}.")]
    return "\n".join(lines) + "\n"


def _word(name: str) -> list[str]:
    return ["\n".join(_paragraph(f"{name}: {glossary()[name]}.")) + "\n"] if name in glossary() else []


def _page(text: str) -> str:
    """A page in lines that fit: indented lines are commands and stay as they are, paragraphs are wrapped."""
    title, *rest = text.splitlines()
    lines = [title, "-" * width_of(title)]
    for line in rest:
        lines += [line] if not line or line.startswith("    ") else _paragraph(line)
    return "\n".join(lines) + "\n"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, min(columns(), 90), break_on_hyphens=False, break_long_words=False)


def _command(context: click.Context, parts: list[str]) -> list[str]:
    """The help of the command that `parts` name, if they do."""
    root = context.find_root()
    command, here = root.command, root
    for part in parts:
        inner = command.get_command(here, part) if isinstance(command, click.Group) else None
        if inner is None:
            return []
        command, here = inner, inner.make_context(part, [], parent=here, resilient_parsing=True)
    return [re.sub(r"\n{3,}", "\n\n", command.get_help(here)) + "\n"]
