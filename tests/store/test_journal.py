"""The journal's numbers: the next one follows all that are there, whatever else lies in the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatmeter.store.folder import Folder
from beatmeter.store.journal import Journal


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
