"""What every word is checked and hashed with: one JSON text per value, and one error."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from beatmeter.errors import SchemaError


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value, on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex sha256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def require(condition: bool, what: str, hint: str = "") -> None:
    """Raise SchemaError unless the condition holds."""
    if not condition:
        raise SchemaError(what, hint)
