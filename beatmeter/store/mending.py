"""Steps of a repair: what was done, damaged files set aside, the metadata of a store written again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from beatmeter.errors import BeatmeterError, StoreError
from beatmeter.schema import FeatureSpec
from beatmeter.store.backend import ABSENT, Backend, UnreadableError
from beatmeter.store.journal import Journal, RecordError
from beatmeter.store.layout import NewerFormatError, StoreLayout, read_spec
from beatmeter.store.segment import holds_json
from beatmeter.store.store import Store


@dataclass
class Repair:
    """What was done, one line each, and the keys of tracks whose features are gone: extract them again."""

    actions: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def repair_roots(backend: Backend, done: Repair) -> None:
    """The metadata of the groups: the store's own, if need be, from any segment that still tells which
    features these are."""
    try:
        spec = Store.open(backend).spec
    except (NewerFormatError, UnreadableError):
        raise
    except StoreError as error:
        found: dict[str, FeatureSpec] = {}
        for name in backend.list("segments"):
            with contextlib.suppress(*ABSENT):
                metadata = backend.read(f"segments/{name}/zarr.json")
                with contextlib.suppress(ValueError, RecursionError, BeatmeterError):
                    told = read_spec(json.loads(metadata))
                    found[told.fingerprint] = told
        named = [
            told
            for fingerprint, told in found.items()
            if backend.where.rstrip("/").endswith(fingerprint[:16])
        ] or list(found.values())
        if len(named) != 1:
            which = "no segment tells" if not named else "segments disagree on"
            raise StoreError(
                f"{error.what}; {which} which features these are", "Remove the folder and extract again."
            ) from error
        spec = named[0]
    for name, content in StoreLayout(spec).group_metadata().items():
        if not holds_json(backend, name, content):
            clear(backend, name, done)
            backend.replace(name, content)
            done.actions.append(f"wrote {name} again")


def unsound(journal: Journal) -> list[int]:
    found = []
    for number in journal.numbers():
        try:
            journal.read(number)
        except RecordError:
            found.append(number)
    return found


def set_aside(
    backend: Backend, journal: Journal, numbers: Iterable[int], empty: dict[str, Any], done: Repair
) -> None:
    """Move damaged records out of their journal. Their numbers must not come again while somebody remembers
    them."""
    unsound = sorted(numbers)
    if unsound and journal.numbers()[-1] == unsound[-1]:
        journal.append(empty)
    for number in unsound:
        name = journal.path(number)
        move_aside(backend, name, done)


def clear(backend: Backend, name: str, done: Repair) -> None:
    """Make room for a file where there is something that is none."""
    if backend.wrong_with(name) not in ("", "is missing"):
        move_aside(backend, name, done)


def move_aside(backend: Backend, name: str, done: Repair) -> None:
    backend.move(name, f"damaged/{name.replace('/', '-')}")
    done.actions.append(f"set {name} aside")
