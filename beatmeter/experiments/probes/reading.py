"""What a probing needs from disk: the layers of a store, the table of targets with its mel control, the
columns of a dataset."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.datasets.columns import number_of, require_columns, text_of
from beatmeter.errors import DataError, shown
from beatmeter.experiments.audit.kernels import aggregated, usable
from beatmeter.experiments.probes.probing import Subject
from beatmeter.runtime.artifacts import read_bytes, read_json
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import Track
from beatmeter.store import Snapshot

MEL = "mel"


def layers_of(
    snapshot: Snapshot, keys: Sequence[str], pooling: str | None = None, tick: Tick = untold
) -> dict[str, np.ndarray]:
    """Every layer (track, column) of one pooling, by default the first that has one number per track and
    column: as training aggregates it."""
    known = {p.name: p for p in usable(snapshot.spec)}
    if pooling is not None and pooling not in known:
        raise DataError(
            f"the store has no pooling {pooling!r} that can be probed", f"It has: {', '.join(known)}."
        )
    chosen = known[pooling] if pooling else next(iter(known.values()))
    found = {}
    for layer in chosen.layers:
        found[f"layer {layer}"] = aggregated(snapshot, keys, chosen, layer).reshape(len(keys), -1)
        tick(1)
    return found


def subject_of(tracks: Sequence[Track], columns: Sequence[str], units: Mapping[str, str]) -> Subject:
    """The columns of tracks: numbers where every cell that says something is a number and there are more than
    12 of them, else classes. Raises DataError for a column that no track has."""
    require_columns(tracks, columns, "--targets")
    names, values, classes = [], [], {}
    for column in columns:
        cells = [text_of(t, column) for t in tracks]
        if column in units or (_numeric(cells) and len(set(cells)) > 12):
            names.append(column)
            values.append(
                [number_of(t, column) if c else math.nan for t, c in zip(tracks, cells, strict=True)]
            )
        else:
            classes[column] = [shown(c) for c in cells]
    table = np.array(values, dtype=float).T if values else np.zeros((len(tracks), 0))
    groups = tuple(t.group for t in tracks)
    return Subject(
        tuple(t.id for t in tracks),
        groups,
        tuple(names),
        tuple(units.get(n, "") for n in names),
        table,
        classes,
    )


def _numeric(cells: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(c)) for c in cells if c) and any(cells)
    except ValueError:
        return False


def units_of(table: Path) -> dict[str, str]:
    """The units of a table of targets by column, from the description beside it; none where there is none."""
    beside = table.with_suffix(".meta.json")
    if not beside.exists():
        return {}
    about: Mapping[str, Any] = read_json(beside, DataError, "Measure the targets again, or delete it.").get(
        "columns", {}
    )
    return {name: str(c.get("unit", "")) for name, c in about.items() if isinstance(c, Mapping)}


def mel_of(table: Path, ids: Sequence[str]) -> np.ndarray | None:
    """The mel statistics (track, column) that were measured with a table of targets; None where they do not
    cover these ids."""
    beside = table.with_suffix(".mel.npz")
    if not beside.exists():
        return None
    try:
        with np.load(io.BytesIO(read_bytes(beside, DataError)), allow_pickle=False) as file:
            at = {str(name): i for i, name in enumerate(file["ids"])}
            vectors = file["vectors"]
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{shown(beside)} cannot be read: {error}", "Measure the targets again.") from None
    if not all(name in at for name in ids):
        return None
    found: np.ndarray = vectors[[at[name] for name in ids]]
    return found
