"""Cells of a sweep: one base of settings, several seeds, a grid of values; each cell is one run with a name
of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beatmeter.errors import ConfigError
from beatmeter.runtime.config import change, flatten, parse_assignment
from beatmeter.settings import RunConfig

LONGEST = 120  # characters of a name


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. Cells of one `system` differ in their seed alone."""

    system: str
    config: RunConfig

    @property
    def name(self) -> str:
        """A name for its folder: the system and the seed."""
        return "_".join(part for part in (self.system, f"seed-{self.config.seed}") if part)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3`, `0-15` or `0,4,8-10` as distinct seeds, in their order."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--seeds {text!r} cannot be read", "Write 3, 0-15 or 0,4,8-10.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(found))


def parse_axis(text: str, base: RunConfig) -> tuple[str, list[Any]]:
    """`training.head_lr=1e-4,1e-3` as the setting's name and its values; values that are lists are separated
    by `;`."""
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise ConfigError(
            f"--grid {text!r} is not of the form name=value,value",
            "For instance: --grid training.head_lr=1e-4,1e-3",
        )
    parts = [part for part in values.split(";" if ";" in values else ",") if part.strip()]
    found = [_at(parse_assignment(f"{name}={part}", base), name.strip()) for part in parts]
    return name.strip(), found


def _at(nested: Mapping[str, Any], path: str) -> Any:
    value: Any = nested
    for part in path.split("."):
        value = value[part]
    return value


def expand(base: RunConfig, axes: Sequence[tuple[str, Sequence[Any]]], seeds: Sequence[int]) -> list[Cell]:
    """Every combination of the axes' values, with every seed. Raises ConfigError for impossible values and
    twins."""
    names = short_names([name for name, _ in axes])
    cells = []
    for values in itertools.product(*(values for _, values in axes)):
        config = base
        for (name, _), value in zip(axes, values, strict=True):
            config = change(config, nest(name, value), f"--grid {name}")
        system = "_".join(
            f"{short}-{shown_value(value)}" for short, value in zip(names, values, strict=True)
        )[:LONGEST]
        cells += [Cell(system, change(config, {"seed": seed})) for seed in seeds]
    twins = {
        c.name
        for i, c in enumerate(cells)
        if any(c.name == other.name or c.config == other.config for other in cells[:i])
    }
    if twins:
        raise ConfigError(f"the grid gives {min(twins)} twice", "Give every value once.")
    return cells


def nest(path: str, value: Any) -> dict[str, Any]:
    """`a.b`, v as {"a": {"b": v}}."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def short_names(paths: Sequence[str]) -> list[str]:
    """Dotted names by their last part, where that tells them apart."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return [short if last.count(short) == 1 else path for short, path in zip(last, paths, strict=True)]


def shown_value(value: Any) -> str:
    """A value as part of a file name, without what commands give a meaning (`=` and `,`)."""
    if isinstance(value, list | tuple):
        return "+".join(shown_value(v) for v in value) or "none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "none"


def same_but(config: RunConfig, free: Sequence[str]) -> str:
    """A text that is equal for settings that differ in nothing but `free`."""
    return repr(sorted((name, value) for name, value in flatten(config).items() if name not in free))
