"""Numbers as DJ programs write them: decimal commas, empty cells, anything."""

from __future__ import annotations

import math


def number(text: str | None) -> float | None:
    """A finite number with a decimal point or comma, None for anything else."""
    try:
        value = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def whole(text: str | None) -> int | None:
    """A whole number, None for anything else."""
    value = number(text)
    return int(value) if value is not None and value == int(value) else None
