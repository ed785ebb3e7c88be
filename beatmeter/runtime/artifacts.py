"""Our own files, read whole or refused by name: JSON, JSON lines, TOML, text and tensors; and JSON that is
always finite.

Every reader of what a run, a checkpoint, a calibration, an ensemble or a table holds goes through here. A
file may have been cut by a full disk, edited, copied from elsewhere or replaced by a folder or a pipe;
whatever it is, the answer is one BeatmeterError that names it. Nothing is allocated that the file does not
hold.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beatmeter.errors import BeatmeterError, ConfigError, RunError, SchemaError, shown
from beatmeter.runtime import atomic, regular

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 256 << 20  # bytes of a text file
DAMAGED = "The file is damaged or of another program: restore it, or make it again."

Kind = type[BeatmeterError]


@contextlib.contextmanager
def named(path: Path, error: Kind = RunError) -> Iterator[None]:
    """Errors of what a file says are `error`, and begin with its name."""
    try:
        yield
    except BeatmeterError as problem:
        raise error(f"{shown(path)}: {problem.what}", problem.hint or DAMAGED) from None


def read_bytes(path: Path, error: Kind = RunError, hint: str = "", largest: int = LARGEST) -> bytes:
    """The bytes of a regular file of at most `largest` bytes. Raises `error`."""
    try:
        with regular.open_file(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise error(
                    f"{shown(path)} has {size} bytes, more than the {largest} that such a file may have",
                    hint or DAMAGED,
                )
            data: bytes = file.read()
            return data
    except OSError as problem:
        raise _unreadable(path, problem, error, hint) from None


def _unreadable(path: Path, problem: OSError, error: Kind, hint: str) -> BeatmeterError:
    if isinstance(problem, FileNotFoundError):
        return error(f"there is no file {shown(path)}", hint)
    return error(f"cannot read {shown(path)}: {problem.strerror or problem}", hint)


def read_text(path: Path, error: Kind = RunError, hint: str = "") -> str:
    """A UTF-8 text (a byte order mark is dropped). Raises `error`, with the line of the first byte that is
    not UTF-8."""
    data = read_bytes(path, error, hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise error(f"{shown(path)}:{line}: not valid UTF-8", hint or "Save the file as UTF-8.") from None


def read_json(path: Path, error: Kind = RunError, hint: str = "", names: bool = False) -> dict[str, Any]:
    """A JSON object whose numbers are finite. Its texts can be printed and written, unless they may be
    `names` of files, which on Linux are any bytes. Raises `error`."""
    return parse_json(read_text(path, error, hint), shown(path), error, hint, names)


def parse_json(
    text: str, where: str, error: Kind = RunError, hint: str = "", names: bool = False
) -> dict[str, Any]:
    """`read_json`, of a text that was found at `where`."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text and not names:
            json.dumps(value, ensure_ascii=False).encode(
                "utf-8"
            )  # half of a surrogate pair cannot be printed or written
    except UnicodeEncodeError:
        raise error(f"{where}: a text holds half a character", hint or DAMAGED) from None
    except json.JSONDecodeError as problem:
        line = f" (line {problem.lineno})" if "\n" in text.strip() else ""
        raise error(f"{where} is not valid JSON: {problem.msg}{line}", hint or DAMAGED) from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{where} is not valid JSON: {problem}", hint or DAMAGED) from None
    if not isinstance(value, dict):
        raise error(f"{where} must hold a JSON object, not {_said(value)}", hint or DAMAGED)
    return value


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:20])


@dataclass(frozen=True)
class JsonLines:
    """Objects of a file of JSON lines. `torn` says that a half line at the end was left out; it is empty when
    there was none."""

    values: list[dict[str, Any]]
    torn: str = ""


def read_json_lines(path: Path, error: Kind = RunError, hint: str = "") -> JsonLines:
    """One object a line. A last line without its end, as a killed process leaves it, is left out and `torn`
    says so; a damaged line anywhere else raises `error` with its number."""
    lines = read_bytes(path, error, hint).split(b"\n")
    half = lines.pop()  # empty where the last line has its end
    values = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            values.append(
                _line(path, number, line, error, hint or f"Delete line {number} to go on without it.")
            )
    if not half.strip():
        return JsonLines(values)
    try:
        return JsonLines([*values, _line(path, len(lines) + 1, half, error, hint)])
    except error:
        return JsonLines(values, f"{shown(path)}:{len(lines) + 1}: the last line was cut and is left out")


def _line(path: Path, number: int, line: bytes, error: Kind, hint: str) -> dict[str, Any]:
    where = f"{shown(path)}:{number}"
    try:
        return parse_json(line.decode("utf-8"), where, error, hint)
    except UnicodeDecodeError:
        raise error(f"{where}: not valid UTF-8", hint) from None


def read_toml(path: Path, error: Kind = ConfigError, hint: str = "") -> dict[str, Any]:
    """A TOML file as nested values whose numbers are finite. Raises `error`, with the line where the syntax
    is wrong."""
    try:
        value = tomllib.loads(read_text(path, error, hint).replace("\r\n", "\n"))
    except (ValueError, RecursionError) as problem:
        raise error(f"{shown(path)} is not valid TOML: {problem}", hint) from None
    bad = not_finite(value)
    if bad:
        raise error(f"{shown(path)}: {bad} is not a finite number", hint)
    return value


def read_tensors(
    path: Path, error: Kind = RunError, hint: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file by name, and the texts of its header. Raises `error` for a file that is
    not whole and for tensors that hold NaN or infinity, by name."""
    from safetensors import SafetensorError, safe_open

    hint = hint or DAMAGED
    try:
        os.close(regular.open_handle(path))  # safe_open would wait for a pipe
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            about = dict(file.metadata() or {})
    except OSError as problem:
        raise _unreadable(path, problem, error, hint) from None
    except (SafetensorError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError) as problem:
        raise error(f"{shown(path)} is not a whole safetensors file: {problem}", hint) from None
    require_finite(tensors, shown(path), error, hint)
    return tensors, about


def require_finite(tensors: Mapping[str, Tensor], where: str, error: Kind = RunError, hint: str = "") -> None:
    """Raise `error` naming the first tensor that holds NaN or infinity."""
    for name in sorted(tensors):
        value = tensors[name]
        if value.is_floating_point():
            value = value if value.element_size() > 1 else value.float()
            if not bool(value.isfinite().all()):
                raise error(f"{where}: the tensor {shown(name)} holds values that are not finite", hint)


def require(value: Any, shape: Any, where: str, error: Kind = RunError, hint: str = "") -> None:
    """Raise `error` unless `value` has the `shape`: a type (float takes whole numbers too), `[shape]` for a
    list of any length, or {key: shape} for an object that has these keys, those that begin with "?" where
    they are there at all, and "*" for the values of every key."""
    if isinstance(shape, dict):
        require(value, Mapping, where, error, hint)
        for key, inner in shape.items():
            name = key.removeprefix("?")
            if key == "*":
                for other, item in value.items():
                    require(item, inner, f"{where}: {shown(other)}", error, hint)
            elif name in value:
                require(value[name], inner, f"{where}: {name}", error, hint)
            elif name == key:
                raise error(f"{where}: {name} is missing", hint or DAMAGED)
    elif isinstance(shape, list):
        require(value, list, where, error, hint)
        for i, item in enumerate(value):
            require(item, shape[0], f"{where}[{i}]", error, hint)
    elif not isinstance(value, (int, float) if shape is float else shape) or (
        isinstance(value, bool) and shape is not bool
    ):
        names: dict[Any, str] = {
            float: "a number",
            int: "a whole number",
            str: "a text",
            list: "a list",
            bool: "true or false",
        }
        wanted = names.get(shape, "an object")
        raise error(f"{where} must be {wanted}, not {_said(value)}", hint or DAMAGED)


def _said(value: Any) -> str:
    """A value of JSON in a few words."""
    text = (
        "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)
    )
    return text if len(text) <= 40 else text[:37] + "..."


def not_finite(value: Any, path: str = "") -> str:
    """`a.b = nan` for the first number inside nested values that is not finite; empty when there is none."""
    if isinstance(value, Mapping):
        return next(
            (
                bad
                for key, item in value.items()
                if (bad := not_finite(item, f"{path}.{key}" if path else str(key)))
            ),
            "",
        )
    if isinstance(value, list | tuple):
        return next((bad for i, item in enumerate(value) if (bad := not_finite(item, f"{path}[{i}]"))), "")
    return f"{path} = {value}" if isinstance(value, float) and not math.isfinite(value) else ""


def to_json(value: Any, indent: int | None = 1, **how: Any) -> str:
    """`value` as JSON text without a last line end; `how` is for `json.dumps`. NaN and infinity are no JSON:
    SchemaError says where."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False, **how)
    except ValueError:
        raise SchemaError(
            f"a value is not finite and cannot be said in JSON: {not_finite(value)}",
            "The model or its data are damaged.",
        ) from None


def to_json_line(value: Any, **how: Any) -> str:
    """`to_json` on one line."""
    return to_json(value, None, **how)


def write_json(path: Path, value: Any, **how: Any) -> None:
    """Write `path` whole, as `to_json` gives it. Raises SchemaError, and OSError as `open` does."""
    atomic.write_text(path, to_json(value, **how) + "\n")
