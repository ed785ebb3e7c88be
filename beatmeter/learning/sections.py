"""Training of the costs of sections on generated songs: descriptors of their bars, and where sections begin
and what they are.

Half of the songs are also read on bars that are wrong in the ways in which found bars are: twice as long,
half as long, or begun on another beat.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.audio.barwise import frame_features
from beatmeter.datasets.synth.songs import Song, render_song
from beatmeter.datasets.synth.songs.song import FUNCTIONS
from beatmeter.errors import RunError
from beatmeter.runtime import atomic
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import Tick, untold
from beatmeter.tasks.structure.costs import BarNetwork
from beatmeter.tasks.structure.descriptors import descriptors
from beatmeter.tasks.structure.sections import bar_edges
from beatmeter.tasks.structure.similarity import bar_features

GRIDS = ("true", "true", "shifted", "double", "half")  # of readings of a song; the first is always true
READINGS = 2


@dataclass(frozen=True)
class Reading:
    """A song by one grid of bars. rows: (bar, value) descriptors. boundary, drop: (bar,) 1 where a section,
    or a drop, begins. function: (bar,) place in FUNCTIONS, -1 unknown."""

    rows: Float[np.ndarray, "bar value"]
    boundary: Float[np.ndarray, " bar"]
    drop: Float[np.ndarray, " bar"]
    function: Int[np.ndarray, " bar"]


@dataclass(frozen=True)
class SongSeed:
    """A song of the generator; form: a row of `SONG_FORMS`, "" for one that is drawn."""

    seed: int
    form: str = ""


def readings_of(of: SongSeed) -> list[Reading]:
    """The readings of a song."""
    seed = of.seed
    song = render_song(seed, form=of.form or None)
    frames = frame_features([song.audio])
    rng = np.random.default_rng(seed)
    found = []
    for number in range(READINGS):
        kind = GRIDS[0] if not number else GRIDS[int(rng.integers(0, len(GRIDS)))]
        if number and kind == "true":
            continue
        edges = bar_edges(changed_grid(song, kind, rng), frames.seconds)
        found.append(_labelled(song, edges, descriptors(bar_features(frames, edges))))
    return found


def changed_grid(song: Song, kind: str, rng: np.random.Generator) -> Float[np.ndarray, " bar"]:
    """Downbeats as they are, or wrong in one way."""
    if kind == "shifted":
        per_bar = int(song.beat_numbers.max())
        by = int(rng.integers(1, max(2, per_bar)))
        return song.beats[by::per_bar] if per_bar > 1 else song.downbeats
    if kind == "double":
        return song.downbeats[int(rng.integers(0, 2)) :: 2]
    if kind == "half":
        between = (song.downbeats[:-1] + song.downbeats[1:]) / 2
        return np.sort(np.concatenate([song.downbeats, between]))
    return song.downbeats


def _labelled(song: Song, edges: Float[np.ndarray, " edge"], rows: Float[np.ndarray, "bar value"]) -> Reading:
    starts = np.array([section.start for section in song.sections])
    middles = (edges[:-1] + edges[1:]) / 2
    inside = np.searchsorted(starts, middles, side="right") - 1
    known = [FUNCTIONS.index(s.function) if s.function in FUNCTIONS else -1 for s in song.sections]
    sounding = (inside >= 0) & (middles < song.sections[-1].end)
    function = np.where(sounding, np.array(known)[np.maximum(inside, 0)], -1)
    return Reading(rows, _marked(edges, starts), _marked(edges, song.drops), function)


def _marked(
    edges: Float[np.ndarray, " edge"], times: Float[np.ndarray, " mark"]
) -> Float[np.ndarray, " bar"]:
    """1 for the bars whose starts are nearest to these times (seconds), half a bar away at most."""
    marked = np.zeros(len(edges) - 1, np.float32)
    nearest = np.abs(np.subtract.outer(times, edges[:-1])).argmin(axis=1)
    bar = float(np.median(np.diff(edges)))
    marked[nearest[np.abs(edges[nearest] - times) <= bar / 2 + 0.05]] = 1.0
    return marked


def make_readings(
    seeds: Sequence[SongSeed], jobs: int = 1, tick: Tick = untold, folder: Path | None = None
) -> list[list[Reading]]:
    """The readings of the songs of these seeds, song by song; those that are in `folder` are read from
    there, the others are kept in it."""
    songs = []
    for outcome in ordered(partial(_kept_readings, folder), seeds, jobs):
        if isinstance(outcome, Crash):
            raise RunError("a process that rendered songs died", "Run it again: what was kept is read.")
        songs.append(outcome)
        tick(1)
    return songs


def _kept_readings(folder: Path | None, seed: SongSeed) -> list[Reading]:
    file = None if folder is None else folder / f"{seed.form or 'any'}-{seed.seed:06d}.npz"
    if file is not None and file.is_file():
        with np.load(file) as kept:
            parts = sorted({int(name.split("-")[1]) for name in kept.files})
            return [Reading(*(kept[f"{f.name}-{k}"] for f in fields(Reading))) for k in parts]
    found = readings_of(seed)
    if file is not None:
        buffer = io.BytesIO()
        arrays = {f"{f.name}-{k}": getattr(r, f.name) for k, r in enumerate(found) for f in fields(Reading)}
        np.savez(buffer, **arrays)
        atomic.write_bytes(file, buffer.getvalue())
    return found


def train_costs(
    train: Sequence[Sequence[Reading]],
    val: Sequence[Sequence[Reading]],
    *,
    epochs: int = 14,
    rate: float = 3e-3,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> BarNetwork:
    """The network of the epoch with the lowest loss of boundaries and drops on the songs of `val`; every
    epoch reads each song once, by one of its grids."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    every = np.concatenate([reading.rows for song in train for reading in song])
    network = BarNetwork(every.shape[1], dropout=0.25)
    network.mean.copy_(torch.from_numpy(every.mean(axis=0)))
    network.deviation.copy_(torch.from_numpy(every.std(axis=0) + 1e-3))
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    size = 8
    steps = epochs * -(-len(train) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    best, kept = np.inf, {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for epoch in range(epochs):
        network.train()
        for at in _steps(len(train), size, rng):
            songs = [train[i] for i in at]
            marks, functions = _losses(network, [song[int(rng.integers(0, len(song)))] for song in songs])
            optimiser.zero_grad()
            (marks + 0.5 * functions).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            now = float(np.mean([float(_losses(network, song[:1])[0]) for song in val]))
        say(f"epoch {epoch + 1} of {epochs}: loss on validation {now:.4f}")
        if now < best:
            best, kept = now, {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.eval()


def _steps(count: int, size: int, rng: np.random.Generator) -> Iterator[Int[np.ndarray, " song"]]:
    order = rng.permutation(count)
    for start in range(0, count, size):
        yield order[start : start + size]


def _losses(network: BarNetwork, readings: Sequence[Reading]) -> tuple[Tensor, Tensor]:
    """Per bar: the binary cross-entropies of boundaries and of drops, and the cross-entropy of functions
    where they are known."""
    longest = max(len(reading.rows) for reading in readings)
    x = torch.zeros(len(readings), longest, readings[0].rows.shape[1])
    marks = torch.zeros(len(readings), longest, 2)
    function = torch.full((len(readings), longest), -1)
    mask = torch.zeros(len(readings), longest, dtype=torch.bool)
    for row, reading in enumerate(readings):
        n = len(reading.rows)
        x[row, :n], function[row, :n] = torch.from_numpy(reading.rows), torch.from_numpy(reading.function)
        marks[row, :n] = torch.from_numpy(np.stack([reading.boundary, reading.drop], axis=1))
        mask[row, :n] = True
    outputs = network(x, mask)
    told = nn.functional.binary_cross_entropy_with_logits(outputs[..., :2], marks, reduction="none")
    known = function >= 0
    functions = nn.functional.cross_entropy(outputs[known][:, 2:], function[known], reduction="sum")
    return told[mask].sum(dim=1).mean(), functions / known.sum().clamp(min=1)
