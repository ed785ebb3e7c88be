"""What the commands of `beatmeter cache` share: the stores at a path, sizes and ages as typed and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.errors import StoreError, shown

if TYPE_CHECKING:
    from beatmeter.store import Store
    from beatmeter.store.backend import Backend

path_argument = click.argument("path", default="cache")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def backends_at(path: str) -> list[Backend]:
    """The stores at a path, damaged ones too. Raises StoreError when there is none."""
    from beatmeter.store import stores_in

    backends = stores_in(path)
    if not backends and "://" not in path and not Path(path).exists():
        raise StoreError(
            f"there is no folder {shown(path)}",
            "Name a feature store or a folder of stores; `beatmeter extract DATASET` makes one.",
        )
    if not backends:
        raise StoreError(
            f"there is no feature store in {shown(path)}", "`beatmeter extract DATASET` makes one."
        )
    return backends


def stores_at(path: str) -> Iterable[Store]:
    """All of them, or the error of the first of which it cannot be known what is in it."""
    from beatmeter.store import Store

    stores = [Store.open(backend) for backend in backends_at(path)]
    for store in stores:
        store.keys()
    return stores


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns under a header; nothing where there are no rows."""
    if rows:
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header) - 1)]
        for row in (header, *rows):
            click.echo(
                "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])
            )


def size(n: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def parse_bytes(text: str) -> int:
    """`1G` in bytes. Raises BadParameter."""
    return int(_scaled(text, {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}))


def parse_seconds(text: str) -> float:
    """`24h` in seconds. Raises BadParameter."""
    return _scaled(text, {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400})


def _scaled(text: str, units: Mapping[str, int]) -> float:
    number, unit = (text[:-1], text[-1]) if text and not text[-1].isdigit() else (text, "")
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise click.BadParameter(
            f"{text!r} is not a number with one of the units {', '.join(u for u in units if u)}"
        )
    return float(number) * units[unit]
