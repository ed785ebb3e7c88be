"""One root error. Every message says what is wrong, where, and what to do next; the command line prints it as
one line."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class BeatmeterError(Exception):
    """Root of every error that beatmeter raises on purpose.

    `what` says what is wrong and where; `hint` says what to do next. `str()` gives both on one line.
    """

    exit_code = 2

    def __init__(self, what: str, hint: str = "") -> None:
        self.what, self.hint = what, hint
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)


class ConfigError(BeatmeterError):
    """A setting that does not exist, has the wrong type, or contradicts another."""


class SchemaError(BeatmeterError):
    """A value that breaks the contract of one of the words in `beatmeter.schema`."""


class DataError(BeatmeterError):
    """A dataset, table or split that cannot be used as it is."""


class AudioError(BeatmeterError):
    """One audio file that cannot be used. `kind` is why, in one word for counting: missing, empty,
    unreadable, truncated, short, long, silent, damaged (samples that are not finite or far too large,
    checksums that are wrong, audio that the header does not count); or, not for good, changed (somebody
    writes it), machine (memory, disk or processes lack)."""

    def __init__(self, what: str, hint: str = "", kind: str = "unreadable") -> None:
        super().__init__(what, hint)
        self.kind = kind

    @property
    def passing(self) -> bool:
        """Whether the bytes of the file may be good all the same: nothing to remember of it."""
        return self.kind in ("changed", "machine")


class BackboneError(BeatmeterError):
    """A backbone whose weights or configuration cannot be used."""


class StoreError(BeatmeterError):
    """A feature store that is damaged, foreign, or cannot be written."""


class FingerprintError(StoreError):
    """Features made in another way than the ones asked for; the message names the fields that differ."""


class EngineError(BeatmeterError):
    """Workers in other processes or on other machines that cannot be started or reached, or cannot go on."""


class RunError(BeatmeterError):
    """A training run or checkpoint that cannot be read, resumed or used for this."""


class EvaluationError(BeatmeterError):
    """Predictions that cannot be measured, compared, calibrated or combined as asked."""


def shown(name: object) -> str:
    """A path or name on one printable line: newlines, control characters and bytes that are not UTF-8 as
    escapes."""
    return "".join(
        c
        if c.isprintable() or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode("ascii")
        for c in str(name)
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?` for the closest known word, or the list of known words when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
