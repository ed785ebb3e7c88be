"""Files of our own that are not what they should be: each is refused by name, at once, and nothing non-finite
is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from beatmeter.errors import BeatmeterError, DataError, RunError, SchemaError
from beatmeter.runtime import artifacts


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def gone(path: Path) -> None:
    pass


def loop(path: Path) -> None:
    path.symlink_to(path)


def holds(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    write.__name__ = f"holds {data[:20]!r}"
    return write


READERS: dict[str, Callable[..., Any]] = {
    "json": artifacts.read_json,
    "lines": artifacts.read_json_lines,
    "toml": artifacts.read_toml,
    "tensors": artifacts.read_tensors,
    "text": artifacts.read_text,
}
NOWHERE = (folder, pipe, gone, loop)
GARBAGE = {
    "json": [
        b"",
        b'{"a": 1',
        b"[1]",
        b"NaN",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000,
    ],
    "lines": [b"{\n{}\n", b"[1]\n", b'{"a": -Infinity}\n{}\n', b"\xff\n"],
    "toml": [
        b"a = ",
        b"\xff",
        b"a = nan",
        b"a = [1, inf]",
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 100_000,
        b"a = 1\na = 2",
    ],
    "tensors": [
        b"",
        b"{}",
        b"\xff" * 100,
        (2**62).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b'{"a":{}}',
    ],
    "text": [b"\xff"],
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_not_such_a_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    for n, make in enumerate([*NOWHERE, *map(holds, GARBAGE[kind])]):
        path = tmp_path / f"file-{n}"
        make(path)
        with pytest.raises(DataError, match=f"file-{n}") as told:
            READERS[kind](path, error=DataError)
        assert "\n" not in str(told.value), make.__name__


def test_a_line_that_was_cut_is_left_out_and_one_in_the_middle_is_refused_by_its_number(
    tmp_path: Path,
) -> None:
    log = tmp_path / "epochs.jsonl"
    log.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n{"epo')
    found = artifacts.read_json_lines(log)
    assert [line["epoch"] for line in found.values] == [1, 2]
    assert "epochs.jsonl:3" in found.torn
    log.write_bytes(b'{"epoch": 1}\n{"epoch": 2}')
    assert artifacts.read_json_lines(log) == artifacts.JsonLines([{"epoch": 1}, {"epoch": 2}])
    log.write_bytes(b'{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(RunError, match=r"epochs\.jsonl:2.*Delete line 2"):
        artifacts.read_json_lines(log)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_that_is_not_finite_is_named(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file(
        {"good": torch.ones(3, dtype=dtype), "head.bad": torch.tensor([1.0, float("nan")], dtype=dtype)}, path
    )
    with pytest.raises(RunError, match=r"best\.safetensors.*head\.bad.*not finite"):
        artifacts.read_tensors(path)
    save_file({"good": torch.ones(3, dtype=dtype), "counts": torch.tensor([1])}, path, metadata={"a": "b"})
    tensors, about = artifacts.read_tensors(path)
    assert about == {"a": "b"}
    assert torch.equal(tensors["good"], torch.ones(3, dtype=dtype))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(artifacts.LARGEST + 1)
    with pytest.raises(RunError, match=r"run\.json has \d+ bytes"):
        artifacts.read_json(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_is_finite_or_not_written(value: float, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(SchemaError, match=r"scores\.3\[1\]"):
        artifacts.write_json(path, {"scores": {"3": [0.5, value]}})
    assert not path.exists()
    artifacts.write_json(path, {"scores": [0.5]})
    assert json.loads(path.read_text()) == {"scores": [0.5]}
    with pytest.raises(BeatmeterError):
        artifacts.to_json_line([value])
    assert artifacts.to_json_line({"a": [1]}) == '{"a": [1]}'


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"epoch": "one"}, 'epoch must be a whole number, not "one"'),
        ({"epoch": True}, "epoch must be a whole number, not true"),
        ({}, "epoch is missing"),
        ({"epoch": 1, "val": []}, "val must be an object, not a list"),
        ({"epoch": 1, "val": {"loss": None}}, "val: loss must be a number, not null"),
        ({"epoch": 1, "mix": [1, "a"]}, "must be a number"),
    ],
)
def test_a_shape_that_is_wrong_is_said(value: Any, says: str) -> None:
    shape = {"epoch": int, "?val": {"loss": float}, "?mix": [float]}
    with pytest.raises(RunError, match=says):
        artifacts.require(value, shape, "run.json")
    artifacts.require({"epoch": 1, "val": {"loss": 1, "more": None}, "mix": []}, shape, "run.json")
