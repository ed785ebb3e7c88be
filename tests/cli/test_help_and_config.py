"""`help` explains topics, commands and words, and what it tells to type exists; `config show` says where
every value comes from; the shell completes."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import filemap
import pytest

from beatmeter.cli import cli
from beatmeter.cli.help import WORDS, glossary, topics
from beatmeter.runtime.config import flatten, layered
from beatmeter.settings import RunConfig

Typed = Callable[..., tuple[int, str, str]]
TYPED = [
    (name, line.strip())
    for name, text in topics().items()
    for line in text.splitlines()
    if line.startswith("    beatmeter ")
]


def require_known(line: str) -> None:
    """The command of a line that people type, and its options, exist."""
    words = shlex.split(line.split(" > ")[0].split(" | ")[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert command is not cli, line
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    assert [w for w in words if w.startswith("--") and w not in known] == [], line


@pytest.mark.parametrize(("topic", "line"), TYPED)
def test_every_command_of_a_topic_exists_with_its_options(topic: str, line: str) -> None:
    require_known(line)


def every_command(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from every_command(inner, f"{name} {inner.name}")


@pytest.mark.parametrize(("name", "command"), list(every_command(cli, "beatmeter")))
def test_every_command_has_examples_of_lines_that_can_be_typed(name: str, command: click.Command) -> None:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [line for p in paragraphs if p.startswith("\b\n") for line in p.splitlines()[1:]]
    assert examples, "an example, after a line with \\b alone"
    for line in examples:
        assert line.startswith(("beatmeter ", "python ", "    --")), "a blank line ends the examples"
        assert len(line) < 110, line
        if line.startswith("beatmeter "):
            require_known(line.removesuffix(" \\").partition("   ")[0])
    if isinstance(command, click.Group):
        with click.Context(command, info_name=name, max_content_width=80, terminal_width=80) as context:
            assert "..." not in command.get_help(context).partition("\nCommands:")[2], (
                "short_help: 58 letters"
            )


def test_topics_words_and_commands_are_listed_and_found(typed: Typed) -> None:
    status, out, _ = typed("help")
    assert status == 0
    for name in (*topics(), *glossary(), *cli.commands):
        assert name in out
    assert typed("help", "training")[1].startswith("Training on labels of your own\n---")
    assert typed("help", "lag", "pooling")[1].startswith("lag pooling: log-lag autocorrelation")
    assert "data synth [OPTIONS] OUT\n" in typed("help", "data", "synth")[1]
    both = typed("help", "features")[1]
    assert both.startswith("features: the rows"), "the word first, then the topic"
    assert "Features and their store\n---" in both


@pytest.mark.parametrize(
    ("asked", "near"),
    [("trainnig", "training"), ("predct", "predict"), ("split leek", "split leak"), ("answer", "answers")],
)
def test_a_misspelt_topic_has_a_nearest_one(typed: Typed, asked: str, near: str) -> None:
    status, out, said = typed("help", asked)
    assert (status, out) == (2, "")
    assert f"Did you mean {near!r}? `beatmeter help` lists all." in said
    assert "`beatmeter help` lists all." in typed("help", "xyzzy")[2]


def test_the_words_are_those_of_the_glossary() -> None:
    assert WORDS.read_text(encoding="utf-8") == filemap.words(), "run `make filemap`"
    assert len(glossary()) > 35


def test_every_setting_says_where_it_comes_from(typed: Typed, tmp_path: Path, place: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[training]\nepochs = 7\nbatch = 2\n")
    asked = ("--recipe", "embedded-lag", "--recipe", mine, "--set", "training.batch=3", "--json")
    value = json.loads(typed("config", "show", *asked)[1])
    told = {s["name"]: (s["value"], s["from"]) for s in value["settings"]}
    assert set(told) == set(flatten(RunConfig()))
    assert told["seed"] == (0, "default")
    assert told["features.backbone"] == ("embedded", "recipe embedded-lag")
    assert told["training.epochs"] == (7, f"recipe {mine}")
    assert told["training.batch"] == (3, "--set training.batch=3")
    out = typed("config", "show", place / "run", "--changed")[1]
    rows = {line.split()[0]: line.split()[1:] for line in out.split("\n\n")[0].splitlines()[1:]}
    assert rows["features.window"] == ["2", str(place / "run" / "config.toml")]
    assert "seed" not in rows


def test_the_environment_is_shown_without_secrets(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    out = typed("config", "show")[1]
    assert "HF_HUB_OFFLINE" in out.split("\nenvironment\n")[1]
    assert "hush" not in out


def test_what_is_wrong_in_a_layer_is_told_with_its_name(typed: Typed, tmp_path: Path) -> None:
    assert (
        "unknown setting 'training.epoch'. Did you mean"
        in typed("config", "show", "--set", "training.epoch=3")[2]
    )
    assert "there are no settings in" in typed("config", "show", tmp_path)[2]
    assert layered(RunConfig(), [("a", {"seed": 1}), ("b", {"seed": 2})])[1] == {"seed": "b"}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("beatmeter pre", {"predict", "pretrain"}),
        ("beatmeter train --recipe embedded-l", {"embedded-lag", "embedded-long", "embedded-lora"}),
        ("beatmeter predict --pri", {"--priors"}),
        ("beatmeter help trai", {"training", "train"}),
    ],
)
def test_the_shell_completes(line: str, offered: set[str]) -> None:
    asked = {"_BEATMETER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = "import sys; sys.argv[0] = 'beatmeter'; from beatmeter.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert {answer.split(",")[1] for answer in done.stdout.split()} == offered


def test_every_shell_is_given_its_script() -> None:
    page = topics()["completion"]
    for shell in ("zsh", "fish"):  # the script for bash asks the version of the bash that is installed
        assert f"_BEATMETER_COMPLETE={shell}_source beatmeter" in page
        code = "import sys; sys.argv[0] = 'beatmeter'; from beatmeter.cli import main; main()"
        environment = os.environ | {"_BEATMETER_COMPLETE": f"{shell}_source"}
        script = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert f"_BEATMETER_COMPLETE={shell}_complete" in script.stdout
