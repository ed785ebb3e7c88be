"""Options that several commands share, and settings made from them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from beatmeter.errors import ConfigError, nearest
from beatmeter.runtime.artifacts import read_toml
from beatmeter.runtime.config import describe, layered, parse_assignment
from beatmeter.runtime.progress import Tick
from beatmeter.settings import RunConfig

F = TypeVar("F", bound=Callable[..., Any])
RECIPES = Path(__file__).parent.parent / "recipes"


def recipes() -> dict[str, Path]:
    """The recipes that ship, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def read_recipe(name: str) -> dict[str, Any]:
    """A shipped recipe by name, or a TOML file by path."""
    known = recipes()
    if name in known:
        return read_toml(known[name])
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return read_toml(path)
    raise ConfigError(f"no recipe {name!r}", nearest(name, known))


def configure(recipe: tuple[str, ...], assignments: tuple[str, ...], **values: Any) -> RunConfig:
    """Defaults, then recipes in order, then `--set`, then what the command line says by its own options."""
    own = {k: v for k, v in values.items() if v not in (None, {}, ())}
    return layered(RunConfig(), [*layers(recipe, assignments), ("command line", own)])[0]


def layers(recipe: tuple[str, ...], assignments: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """What recipes and `--set` change, in order, each with its name."""
    defaults = RunConfig()
    return [
        *((f"recipe {name}", read_recipe(name)) for name in recipe),
        *((f"--set {text}", parse_assignment(text, defaults)) for text in assignments),
    ]


def _complete_recipe(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [CompletionItem(name) for name in recipes() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def _list_settings(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    for name, default, help_text in describe(RunConfig()):
        click.echo(f"{name} = {default!r}\n    {help_text}")
    context.exit()


def settings_options(command: F) -> F:
    """--recipe, --set, --settings."""
    for decorate in (
        click.option(
            "--settings",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_list_settings,
            help="List every setting and leave.",
        ),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="Change one setting; may be repeated. See --settings.",
        ),
        click.option(
            "--recipe",
            multiple=True,
            metavar="NAME|FILE",
            shell_complete=_complete_recipe,
            help=f"Settings from a recipe: {', '.join(recipes())}, or a TOML file.",
        ),
    ):
        command = decorate(command)
    return command


def device_option(command: F) -> F:
    """--device."""
    return click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:0 or auto.")(
        command
    )


def colourful() -> bool:
    """Whether output may have colours and bars: not with NO_COLOR (https://no-color.org), nor on a terminal
    that knows neither."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def echo(text: str) -> None:
    """A line for people: stderr, so that stdout stays clean for results."""
    click.echo(text, err=True)


def quiet(text: str) -> None:
    """No line: of the processes that train together, the first tells."""


def columns() -> int:
    """How many columns of a terminal may be used: those that it has, at least 20."""
    return max(20, shutil.get_terminal_size((100, 24)).columns)


def bars() -> bool:
    """Whether stderr is a terminal that can show progress."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Terminal:
    """Progress bars on stderr with rate and time left; silent where stderr is no terminal. Nothing stays of
    them."""

    @contextlib.contextmanager
    def track(self, label: str, total: float, unit: str = "clips") -> Iterator[Tick]:
        """A bar."""
        from tqdm import tqdm

        with tqdm(
            total=total,
            desc=label,
            unit=f" {unit}",
            leave=False,
            disable=not bars(),
            dynamic_ncols=True,
            smoothing=0.1,
        ) as bar:
            yield bar.update


TERMINAL = Terminal()


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """While something is printed, progress bars make room for it."""
    if not bars():
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode():
        yield
