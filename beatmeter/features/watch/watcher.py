"""The loop: look, extract what is complete, commit, say how it goes; wait and try again when the disk or the
folder fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beatmeter.errors import BeatmeterError, StoreError, shown
from beatmeter.features.service import FeatureService, Filled, Filling
from beatmeter.features.watch.arrivals import Arrivals
from beatmeter.features.watch.log import LOG, tell_manager
from beatmeter.features.watch.status import StatusFile
from beatmeter.runtime.progress import Tick
from beatmeter.schema import Track
from beatmeter.store import Store

BATCH = 128  # files between two looks at the folder
_LOOKING = 10  # a look may take a tenth of the time
_FIRST, _LONGEST = 1.0, 60.0  # seconds of the back-off
_SPAN = 60.0  # seconds over which clips/s is measured
_NEWS = 1.0  # seconds between two writings of the status, whatever goes on meanwhile


class Watcher:
    """Keeps a store filled with what lies in a folder. `run` returns when `stop` is set."""

    def __init__(
        self,
        service: FeatureService,
        store: Store,
        arrivals: Arrivals,
        file: StatusFile,
        stop: threading.Event,
        interval: float,
        retry_failed: bool,
    ) -> None:
        self.service, self.store, self.arrivals, self.file, self.stop = service, store, arrivals, file, stop
        self.interval, self.retry_failed = interval, retry_failed
        self.status = file.status
        self._delay = _FIRST
        self._next_look = 0.0
        self._recent: deque[float] = deque()
        self._began = time.monotonic()
        self._todo: deque[Track] = deque()
        self._telling = threading.Lock()
        self._lost = False

    def run(self, ready: Callable[[], object]) -> int:
        """`ready()` is called once, after the first look. 0 when everything in flight was committed, 1 when
        it could not be."""
        try:
            with self._heartbeat():
                _ = (
                    self.service.backbone
                )  # weights that are missing are told now, not when the first file comes
                self._keep_filled(ready)
        except BeatmeterError as error:
            LOG.error("%s", error)
            self.file.fail(str(error))
            raise
        except BaseException as error:
            LOG.exception("crashed")
            self.file.fail(f"{type(error).__name__}: {error}")
            raise
        self._tell("stopped")
        LOG.info(
            "stopped: %d done, %d waiting, %d failed",
            self.status.done,
            self.status.waiting,
            self.status.failed,
        )
        return int(self._lost)

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Write the status every second: a long file, hashing or a back-off must not look like death. Says at
        once that it stops."""
        ended = threading.Event()

        def beat() -> None:
            while not self.stop.wait(_NEWS):
                if ended.is_set():
                    return
                self._tell()
            tell_manager("STOPPING=1")
            LOG.info("stopping: what is in flight is finished")
            self._tell()
            while not ended.wait(_NEWS):
                self._tell()

        thread = threading.Thread(target=beat, name="beatmeter-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _keep_filled(self, ready: Callable[[], object]) -> None:
        waiting_for_first = True
        while not self.stop.is_set():
            if not self._look():
                continue
            if waiting_for_first:
                tell_manager("READY=1")
                ready()
                waiting_for_first = False
            if self._todo:
                self._extract([self._todo.popleft() for _ in range(min(BATCH, len(self._todo)))])
            else:
                self._delay = _FIRST
                self._tell("idle")
                self.stop.wait(max(0.01, self._next_look - time.monotonic()))

    def _look(self) -> bool:
        """Look at the folder when it is time to. False, after some waiting, when that is not possible."""
        began = time.monotonic()
        if began < self._next_look:
            return True
        before = self.arrivals.skipped
        try:
            self._todo = deque(self.arrivals.look(began))
        except (BeatmeterError, OSError) as error:
            self._wait(str(error))
            return False
        for name in sorted(self.arrivals.skipped.keys() - before.keys()):  # once each
            reason = (
                f"folder {shown(name)} is left out while it cannot be listed: {self.arrivals.skipped[name]}"
            )
            self.file.note(reason)
            LOG.warning("%s", reason)
        took = time.monotonic() - began
        self._next_look = time.monotonic() + max(self.interval, _LOOKING * took)
        return True

    def _extract(self, files: list[Track]) -> None:
        self._tell("extracting")
        todo = [track for track in files if self.arrivals.unchanged(track)]
        try:
            how = Filling(LOG.info, self, self.retry_failed, self.stop, self._patience, self._written)
            filled = self.service.fill(self.store, todo, how)
            self._settle(todo, filled)
        except BeatmeterError as error:
            if self.stop.is_set():
                self._lost = True
                self.file.note(str(error))
                LOG.error(
                    "what was in flight could not be committed, it will be extracted again: %s", shown(error)
                )
            else:
                self._wait(str(error))
            return
        self._delay = _FIRST

    def _settle(self, todo: list[Track], filled: Filled) -> None:
        missing = set(self.store.missing(filled.keys.values()))
        known = self.store.failures()
        for track in todo:
            key = filled.keys.get(track.id)
            reason = filled.failed.get(track.id)
            fresh = key not in known or known[key].time >= self.status.since  # old ones were told before
            if key is not None and key not in missing:
                self.arrivals.finish(track.id, good=True)
            elif key in known:
                self.arrivals.finish(track.id, good=False)
            elif reason and (
                key is None or self.arrivals.unchanged(track)
            ):  # nothing is wrong with its bytes, as far as one can tell
                self.arrivals.postpone(track.id, time.monotonic())
            else:  # given up, or somebody writes it
                fresh = False
            if reason and fresh:
                self.file.note(f"{track.id}: {reason}")
                LOG.warning("%s: %s", shown(track.id), shown(reason))

    def _patience(self, error: StoreError) -> bool:
        """The store cannot be written: what is computed is kept and tried again. Once more after `stop`, then
        no more."""
        if self.stop.is_set():
            return False
        self._wait(str(error))
        return True

    def _written(self, tracks: int) -> None:
        """The store took them: what was wrong with it is over."""
        self.status.extracted += tracks
        self._delay = _FIRST
        if self.status.state == "blocked":
            self._tell("extracting")

    def _wait(self, reason: str) -> None:
        """Say what is wrong, and let some time pass."""
        self.file.note(reason)
        LOG.warning("trying again in %.0f s: %s", self._delay, shown(reason))
        self._tell("blocked")
        self.stop.wait(self._delay)
        self._delay = min(_LONGEST, 2 * self._delay)

    @contextmanager
    def track(self, label: str, total: float, unit: str = "clips") -> Iterator[Tick]:
        """As a Reporter: what went through the backbone lately is the speed in the status."""

        def tick(n: float) -> None:
            with self._telling:
                self._recent.extend([time.monotonic()] * round(n))

        yield tick

    def _tell(self, state: str | None = None) -> None:
        """Write the status, with another state."""
        with self._telling:  # the heartbeat and the thread that commits tell too
            moment = time.monotonic()
            while self._recent and moment - self._recent[0] > _SPAN:
                self._recent.popleft()
            s = self.status
            s.state = "stopping" if self.stop.is_set() and state != "stopped" else state or s.state
            s.done, s.waiting, s.failed = self.arrivals.counts()
            s.clips_per_second = round(len(self._recent) / max(1.0, min(_SPAN, moment - self._began)), 3)
            self.file.write()
