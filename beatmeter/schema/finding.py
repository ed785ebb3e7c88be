"""What a diagnostic says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from beatmeter.schema.checks import canonical_json, require

_TITLES = {"leakage": "output leakage", "co_occurrence": "co-occurrence"}


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnostic found: a verdict in words, the numbers behind it, and how serious it is."""

    name: str
    level: Literal["ok", "note", "warning"]
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name as people read it."""
        return _TITLES.get(self.name, self.name.replace("_", " "))

    def __post_init__(self) -> None:
        require(
            self.level in ("ok", "note", "warning"), f"finding {self.name!r}: unknown level {self.level!r}"
        )
        canonical_json(dict(self.values))  # must be plain JSON
