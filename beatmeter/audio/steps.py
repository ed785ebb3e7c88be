"""A stream of samples as windows around steps of equal length, the same whatever the blocks that it comes
in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """Windows of samples (window, sample), zero where there is no audio, and how many samples at the left and
    right ends of each are such zeros."""

    windows: np.ndarray
    left: np.ndarray
    right: np.ndarray


class Steps:
    """Cuts a stream into windows around steps of equal length; only what the next window needs is held."""

    def __init__(self, step: int, window: int) -> None:
        self.step, self.window = step, window
        self._before = (window - step) // 2  # zeros in front of the audio
        self._held = np.zeros(self._before)
        self._first, self._samples = 0, 0

    def push(self, block: np.ndarray) -> Cut:
        self._samples += len(block)
        self._held = np.concatenate([self._held, block])
        return self._cut(max(0, (len(self._held) - self.window) // self.step + 1))

    def finish(self) -> Cut:
        """The windows of the whole steps that are left, with zeros behind the audio."""
        count = max(0, self._samples // self.step - self._first)
        lacking = (count - 1) * self.step + self.window - len(self._held)
        self._held = np.concatenate([self._held, np.zeros(max(0, lacking if count else 0))])
        return self._cut(count)

    def _cut(self, count: int) -> Cut:
        if not count:
            return Cut(np.zeros((0, self.window)), np.zeros(0, int), np.zeros(0, int))
        windows = np.lib.stride_tricks.sliding_window_view(self._held, self.window)
        starts = (self._first + np.arange(count)) * self.step - self._before
        cut = Cut(
            windows[: count * self.step : self.step][:count],
            np.clip(-starts, 0, None),
            np.clip(starts + self.window - self._samples, 0, None),
        )
        self._held = self._held[count * self.step :]
        self._first += count
        return cut
