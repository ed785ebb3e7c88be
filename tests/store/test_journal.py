"""The journal's numbers: the next one follows all that are there, whatever else lies in the folder."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import pytest

from beatmeter.errors import StoreError
from beatmeter.store.folder import Folder
from beatmeter.store.journal import Journal, RecordError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], 1),
        (["00000001.json", "00000007.json"], 8),
        (["00000007.json", "zz.tmp"], 8),
        (["00000007.json", "9"], 8),
        (["00000007.json", "a.json"], 8),
        (["99999999.json", "100000000.json"], 100000001),
        (["99999999.json"], 100000000),
        (["notes"], 1),
        (["00000007.json", "000000009.json"], 8),
        (["00000007.json", "٠٠٠٠٠٠٠٩.json"], 8),
        (["00000007.json", "9" * 18 + ".json"], 8),
        (["0" * 7 + "7.json", "0" * 11 + "9.json"], 8),
    ],
)
def test_the_next_number_follows_all_that_are_there(names: list[str], expected: int, tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    for name in names:
        (tmp_path / "commits" / name).touch()
    journal = Journal(Folder(tmp_path), "commits")
    assert journal.append({"a": 1}) == expected
    assert journal.read(expected) == {"a": 1}
    assert journal.numbers()[-1] == expected
    assert all(
        journal.path(n) == f"commits/{n:08d}.json" and Path(journal.path(n)).name not in journal.foreign()
        for n in journal.numbers()
    )


def test_every_name_is_a_record_or_foreign(tmp_path: Path) -> None:
    """A number stands for the file of that number and no other, or maintenance would look for files that are
    not there."""
    names = [
        "00000001.json",
        "000000001.json",
        "123456789.json",
        "012345678.json",
        "٠٠٠٠٠٠٠٩.json",
        "9" * 12 + ".json",
        "9" * 13 + ".json",
    ]
    (tmp_path / "commits").mkdir()
    for name in names:
        (tmp_path / "commits" / name).touch()
    journal = Journal(Folder(tmp_path), "commits")
    records = {Path(journal.path(number)).name for number in journal.numbers()}
    assert records == {"00000001.json", "123456789.json", "9" * 12 + ".json"}
    assert set(journal.foreign()) == set(names) - records


def test_numbers_that_are_used_up_are_an_error(tmp_path: Path) -> None:
    """What has the last number can be no record of ours; after it nothing could be found again."""
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / ("9" * 12 + ".json")).touch()
    with pytest.raises(StoreError, match=r"last number.*move it out"):
        Journal(Folder(tmp_path), "commits").append({"a": 1})
    assert len(list((tmp_path / "commits").iterdir())) == 1


def test_a_record_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    body = b'{"a":' + b"[" * 100_000 + b"]" * 100_000
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits/00000001.json").write_bytes(
        body + b',"crc32c":"%08x"}\n' % google_crc32c.value(body)
    )
    with pytest.raises(RecordError, match="nested deeper"):
        Journal(Folder(tmp_path), "commits").read(1)
