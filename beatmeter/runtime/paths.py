"""What may be given as a path in Python: text or anything with a file system name. One path is never taken
for its letters."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from beatmeter.errors import ConfigError

StrPath: TypeAlias = str | os.PathLike[str]


def as_path(value: StrPath) -> Path:
    """`value` as a Path. Raises ConfigError for anything else, and for empty text, which would mean the
    current folder."""
    if isinstance(value, str | os.PathLike) and (text := os.fsdecode(value)):
        return Path(text)
    raise ConfigError(f"{value!r} is not a path", "Give text or a pathlib.Path.")


def as_paths(value: StrPath | Iterable[StrPath]) -> list[Path]:
    """One path, or several, as a list. Raises ConfigError for what is neither."""
    if isinstance(value, str | os.PathLike):
        return [as_path(value)]
    if not isinstance(value, Iterable):
        raise ConfigError(
            f"{value!r} is neither a path nor several", "Give text, a pathlib.Path, or a list of them."
        )
    return [as_path(one) for one in value]


def as_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """One name, or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)
