"""What a value of a setting may be."""

from __future__ import annotations

from beatmeter.errors import ConfigError


def positive(owner: object, *names: str) -> None:
    """Raise ConfigError unless these settings are above zero."""
    for name in names:
        if not getattr(owner, name) > 0:
            raise ConfigError(f"{name} = {getattr(owner, name)!r} must be above zero")


def at_most(owner: object, **limits: float) -> None:
    """Sizes that no machine has room for are refused before anything is allocated; a tuple counts by its
    largest."""
    for name, limit in limits.items():
        value = getattr(owner, name)
        if (max(value, default=0) if isinstance(value, tuple) else value) > limit:
            raise ConfigError(f"{name} = {value!r} is too large", f"It may be {limit:g} at most.")


def fraction(owner: object, *names: str) -> None:
    """Raise ConfigError unless these settings are in [0, 1)."""
    for name in names:
        if not 0 <= getattr(owner, name) < 1:
            raise ConfigError(f"{name} = {getattr(owner, name)!r} must be in [0, 1)")
