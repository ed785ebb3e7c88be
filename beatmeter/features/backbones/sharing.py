"""What several backbones have in common is computed once when they are given the same tensor of waves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from beatmeter.features.backbones.base import Backbone


class Latest(threading.local):
    """The latest result of a function of one tensor, for as long as that very tensor lives; each thread has
    its own."""

    def __init__(self) -> None:
        self._argument: weakref.ref[Tensor] | None = None
        self._result: Tensor | None = None

    def __call__(self, make: Callable[[Tensor], Tensor], argument: Tensor) -> Tensor:
        if self._result is None or self._argument is None or self._argument() is not argument:
            self._result = make(argument)
            self._argument = weakref.ref(argument, self._forget)
        return self._result

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        if self._argument is gone:
            self._argument = self._result = None


def share_front_ends(backbones: Iterable[Backbone]) -> None:
    """Let backbones that begin alike hold that part once, and compute it once when they are given the same
    tensor of waves one after the other: frozen encoders that were adapted from one checkpoint, and the
    spectra of all members of an ensemble that read some."""
    known: list[Backbone] = []
    for backbone in backbones:
        if not backbone.training:
            twin = next((other for other in known if backbone.twin_of(other)), None)
            if twin is None:
                known.append(backbone)
            else:
                backbone.share(twin)
