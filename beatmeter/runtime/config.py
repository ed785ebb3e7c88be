"""Settings as frozen dataclasses: recipes (TOML files that list differences), `--set a.b=c`, errors that name
the nearest key.

The dataclasses live in `beatmeter.settings`; this file only builds, changes, compares and writes such trees.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from beatmeter.errors import ConfigError, nearest, shown

C = TypeVar("C")
_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def option(default: Any, help: str) -> Any:
    """A setting with its default and the one sentence that `--help` and the page of settings show."""
    if isinstance(default, list | dict):
        raise TypeError("defaults of settings are immutable: use a tuple")
    return dataclasses.field(default=default, metadata={"help": help})


def section(kind: type[C], help: str) -> Any:
    """A nested group of settings."""
    return dataclasses.field(default_factory=kind, metadata={"help": help})


def build(kind: type[C], values: Mapping[str, Any], where: str = "settings") -> C:
    """An instance of the dataclass `kind` from nested plain values; what is absent keeps its default."""
    return change(kind(), values, where)


def change(config: C, values: Mapping[str, Any], where: str = "settings", prefix: str = "") -> C:
    """A copy of `config` with the nested `values` put in. Unknown keys and wrong types raise ConfigError."""
    hints = get_type_hints(type(config))
    known = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown setting {path!r}", _suggest(key, prefix, known))
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{where}: {path!r} is a group of settings, not the value {value!r}",
                    f"Set {path}.<name>.",
                )
            new[key] = change(current, value, where, f"{path}.")
        else:
            new[key] = _convert(value, hints[key], path, where)
    try:
        return dataclasses.replace(config, **new)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def layered(config: C, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[C, dict[str, str]]:
    """`config` with the nested values of named layers put in, in order, and for every setting that one of
    them sets the name of the last that does. Raises ConfigError as `change`."""
    sources: dict[str, str] = {}
    for name, values in layers:
        config = change(config, values, name)
        sources |= dict.fromkeys(_paths(values), name)
    return config, sources


def _paths(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of nested values."""
    found: list[str] = []
    for key, value in values.items():
        found += _paths(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return found


def _suggest(key: str, prefix: str, known: Mapping[str, Any]) -> str:
    return nearest(f"{prefix}{key}", [f"{prefix}{name}" for name in known])


def _convert(value: Any, hint: Any, path: str, where: str) -> Any:
    """`value` as the annotated type `hint`; ints become floats or text, lists become tuples, nothing else is
    coerced."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        hint = next(a for a in args if a is not type(None))
        return _convert(value, hint, path, where)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(
            f"{where}: {path} = {value!r} is not possible", f"Choose one of: {', '.join(map(str, args))}."
        )
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            value = [value]
        return tuple(_convert(item, args[0], path, where) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise ConfigError(f"{where}: {path} must be a finite number")
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # `--set task.classes=3,4` and `layers = 6`
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(
        f"{where}: {path} must be {_KINDS.get(hint, hint.__name__)}, got {json.dumps(value, default=str)}"
    )


def parse_assignment(text: str, config: Any) -> dict[str, Any]:
    """`a.b=c` as nested values. `c` is read as a TOML value; bare words are strings; `none` clears an
    optional setting."""
    path, equals, raw = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(
            f"--set {text!r} is not of the form name.name=value", "For instance: --set training.epochs=5"
        )
    raw = raw.strip()
    if raw.lower() == "none":
        value: Any = None
    else:
        try:
            value = tomllib.loads(f"v = {raw}")["v"]
        except tomllib.TOMLDecodeError:
            value = [part.strip() for part in raw.split(",")] if "," in raw else raw
            if isinstance(value, list):
                value = [_scalar(part) for part in value]
    nested: dict[str, Any] = {}
    *parents, last = path.strip().split(".")
    at = nested
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = value
    _require_leaf(config, path.strip())
    return nested


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _require_leaf(config: Any, path: str) -> None:
    """Name the nearest full setting when `path` does not exist."""
    if path not in flatten(config):
        groups = {name.rsplit(".", 1)[0] for name in flatten(config) if "." in name}
        hint = f"Set {path}.<name>." if path in groups else nearest(path, flatten(config))
        raise ConfigError(f"--set: unknown setting {path!r}", hint)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf setting by dotted name."""
    result: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            result |= flatten(value, f"{prefix}{f.name}.")
        else:
            result[f"{prefix}{f.name}"] = value
    return result


def describe(config: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(dotted name, value, help) of every setting, in order: `--help` and the page of settings are made from
    it."""
    result: list[tuple[str, Any, str]] = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            result += describe(value, f"{prefix}{f.name}.")
        else:
            result.append((f"{prefix}{f.name}", value, str(f.metadata.get("help", ""))))
    return result


def differences(config: Any, base: Any) -> dict[str, Any]:
    """Nested values in which `config` differs from `base`: what a recipe has to list."""
    nested: dict[str, Any] = {}
    before = flatten(base)
    for name, value in flatten(config).items():
        if value != before[name]:
            *parents, last = name.split(".")
            at = nested
            for parent in parents:
                at = at.setdefault(parent, {})
            at[last] = list(value) if isinstance(value, tuple) else value
    return nested


def to_toml(nested: Mapping[str, Any], prefix: str = "") -> str:
    """Nested plain values as TOML (strings, numbers, booleans, lists); None is left out."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in nested.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    for key, value in nested.items():
        if isinstance(value, Mapping):
            body = to_toml(value, f"{prefix}{key}.")
            lines += ["", f"[{prefix}{key}]", body.strip()] if body.strip() else []
    text = "\n".join(lines).strip() + "\n"
    odd = next(
        (
            line
            for line in text.splitlines()
            if not line.isprintable() or "\udc80" <= max(line, default="") <= "\udcff"
        ),
        "",
    )
    if odd:
        raise ConfigError(
            f"a setting is not valid UTF-8 and cannot be kept: {shown(odd)}", "Rename that file or folder."
        )
    return text


def to_json(config: Any) -> dict[str, Any]:
    """The whole tree as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[no-any-return]
