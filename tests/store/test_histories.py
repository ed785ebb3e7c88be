"""Any history of a store: commits, indexes, compactions, repairs and collections, with files that go away and
come back. What was acknowledged is there in a fresh handle as soon as its files are, and every number is
right.

BEATMETER_FULL=1 tries ten times as many.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import store_samples as samples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beatmeter.errors import StoreError
from beatmeter.store import Store
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.repair import repair
from beatmeter.store.verify import verify

NUMBERS = {samples.key(n): n for n in range(200)}
FULL = os.environ.get("BEATMETER_FULL", "0") != "0"


class History(RuleBasedStateMachine):
    """One store and two handles, one of which stays open all the time."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="beatmeter-history-"))
        self.old = Store.create(self.folder / "store", samples.spec())
        self.path = self.old.path
        self.acknowledged: set[str] = set()
        self.written_over: set[str] = (
            set()
        )  # tracks whose record another took the place of: only a repair promises them again
        self.next = 0
        self.away: dict[Path, Path] = {}  # where files were, and where they are

    def handle(self, fresh: bool) -> Store:
        return Store.open(self.path) if fresh else self.old

    @rule(fresh=st.booleans(), again=st.booleans())
    def commit(self, fresh: bool, again: bool) -> None:
        """New tracks; with `again`, one that may be there already. Tracks whose files are away are committed
        anew."""
        wanted = [self.next, self.next + 1, *([self.next // 2] if again else [])]
        self.next += 2
        receipt = self.handle(fresh).commit(samples.tracks(samples.spec(), wanted))
        self.acknowledged |= {*receipt.added, *receipt.present} - self.written_over

    @rule(fresh=st.booleans())
    def save_index(self, fresh: bool) -> None:
        self.handle(fresh).catalog.save_index()

    @rule(fresh=st.booleans(), size=st.sampled_from([1, 2_000, 1 << 20]))
    def compact(self, fresh: bool, size: int) -> None:
        try:
            compact(self.handle(fresh), size)
        except StoreError as error:
            assert self.away
            assert "missing" in error.what  # noqa: PT017

    @precondition(lambda self: not self.away)
    @rule()
    def repair(self) -> None:
        """All files are there or were damaged while a copy was: no track is given up."""
        assert repair(self.path).lost == []
        assert verify(self.path, full=True).sound

    @precondition(lambda self: not self.away)
    @rule()
    def collect(self) -> None:
        try:
            collect(Store.open(self.path), 0.0)
        except StoreError as error:  # it takes no track away whose record was written over
            assert self.written_over
            assert "without a record" in error.what  # noqa: PT017

    @rule(which=st.integers(0, 9), part=st.sampled_from(["", "stats", "lag/c.0.0.0.0"]))
    def hide(self, which: int, part: str) -> None:
        """A segment, or a part of it, goes away."""
        catalog = Store.open(self.path).catalog
        catalog.refresh(use_index=False)
        named = dict.fromkeys(
            self.path / "segments" / commit.segment
            for _, commit in sorted(catalog.commits.items())
            if commit.segment
        )
        segments = [p for p in named if p.is_dir() and not any(p in f.parents for f in self.away)]
        if segments and len(self.away) < 2:
            file = segments[which % len(segments)] / part
            self.away[file] = self.folder / f"away-{len(list(self.folder.iterdir()))}"
            file.rename(self.away[file])

    @precondition(lambda self: self.away)
    @rule()
    def restore(self) -> None:
        """Everything is put back."""
        for file, place in self.away.items():
            place.rename(file)
        self.away = {}

    @precondition(lambda self: not self.away)
    @rule(indexed=st.booleans())
    def merge_an_older_copy(self, indexed: bool) -> None:
        """A copy of the store goes on for itself for a commit and is copied over the store, which has gone on
        as well."""
        copy = self.folder / "copy"
        shutil.copytree(self.path, copy)
        other = Store.open(copy).commit(samples.tracks(samples.spec(), [self.next]))
        mine = self.old.commit(samples.tracks(samples.spec(), [self.next + 1]))
        if indexed:
            self.old.catalog.save_index()
        self.next += 2
        shutil.copytree(copy, self.path, dirs_exist_ok=True)
        shutil.rmtree(copy)
        assert other.number >= 1
        self.acknowledged |= set(other.added)
        (self.written_over if mine.number == other.number else self.acknowledged).update(mine.added)

    @invariant()
    def what_is_there_is_right(self) -> None:
        if not hasattr(self, "path"):
            return
        snapshot = Store.open(self.path).snapshot()
        for key in snapshot.keys:
            assert samples.same(snapshot.read(key), samples.features(samples.spec(), NUMBERS[key]))
        if not self.away:
            assert self.acknowledged <= set(snapshot.keys)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=250 if FULL else 25, stateful_step_count=20)


def test_a_handle_that_knew_records_of_before_a_merge_compacts_what_is_there_now() -> None:
    """A history that was found by chance: its compaction left out a track that a repair had brought back."""
    history = History()
    history.create()
    try:
        history.merge_an_older_copy(indexed=False)
        history.merge_an_older_copy(indexed=True)
        history.repair()
        repaired = set(Store.open(history.path).keys())
        history.compact(fresh=False, size=2_000)
        history.collect()
        assert set(Store.open(history.path).keys()) == repaired
    finally:
        history.teardown()
