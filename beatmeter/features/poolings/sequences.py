"""Rows of several tracks as one batch of sequences, padded to the longest.

Among the features of a batch a sequence pooling NAME has three entries: `NAME`, values (track, time, layer,
*axes), 0 in the padding; `NAME.mask` (track, time), True where a row is; `NAME.times` (track, time, 2), start
and end in seconds from the beginning of the track around the centre of what the row hears
(`chunking.row_spans`), float64, NaN in the padding. Names of poolings have no dots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MASK, TIMES = ".mask", ".times"


def pad(
    name: str, rows: Sequence[Float[Tensor, "time layer ..."]], times: Sequence[Float[Tensor, "time 2"]]
) -> dict[str, Tensor]:
    """The entries of one pooling, from the rows of each track."""
    longest = max(map(len, rows))
    counts = torch.tensor([len(r) for r in rows], device=rows[0].device)
    return {
        name: pad_sequence(list(rows), batch_first=True),
        name + MASK: torch.arange(longest, device=rows[0].device) < counts[:, None],
        name + TIMES: pad_sequence(
            [seconds(t, rows[0].device) for t in times], batch_first=True, padding_value=torch.nan
        ),
    }


def seconds(times: Float[Tensor, "time 2"], device: torch.device) -> Float[Tensor, "time 2"]:
    """Times on a device, float64 where the device knows it: hours after its beginning a track has still
    milliseconds."""
    return times.to(device, torch.float32 if device.type == "mps" else torch.float64)


def mask_of(features: Mapping[str, Tensor], name: str) -> Bool[Tensor, "track time"] | None:
    """Where a sequence has rows; None for a pooling of one array a track."""
    return features.get(name + MASK)


def real_rows(features: Mapping[str, Tensor], name: str) -> Float[Tensor, "item layer ..."]:
    """All arrays of one pooling, without padding: one a track, or all rows of sequences."""
    mask = mask_of(features, name)
    return features[name] if mask is None else features[name][mask]


def join(parts: Sequence[Mapping[str, Tensor]], names: Iterable[str]) -> dict[str, Tensor]:
    """The features of several batches, by these poolings, as one batch."""
    joined: dict[str, Tensor] = {}
    for name in names:
        masks = [mask_of(part, name) for part in parts]
        if masks[0] is None:
            joined[name] = torch.cat([part[name] for part in parts])
            continue
        tracks = [
            (part, i, m[i])
            for part, m in zip(parts, masks, strict=True)
            if m is not None
            for i in range(len(m))
        ]
        joined |= pad(
            name,
            [part[name][i][m] for part, i, m in tracks],
            [part[name + TIMES][i][m] for part, i, m in tracks],
        )
    return joined


def row_centres(features: Mapping[str, Tensor], name: str) -> list[Float[np.ndarray, " time"]]:
    """The centre of what every row of each track hears, seconds, of the sequence `name` without padding."""
    middles, mask = features[name + TIMES].mean(dim=2).cpu().numpy(), features[name + MASK].cpu().numpy()
    return [row[kept] for row, kept in zip(middles, mask, strict=True)]


def of_times(centres: Float[np.ndarray, " time"], name: str) -> dict[str, Tensor]:
    """The entries of the sequence `name` of one track whose rows have these centres, without values."""
    times = torch.from_numpy(np.stack([centres, centres], axis=1))[None]
    return {name + TIMES: times, name + MASK: torch.ones(times.shape[:2], dtype=torch.bool)}
