"""How alike the bars of a track are: self-similarity of mel bands, chroma and pitches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from beatmeter.audio.barwise import MEL_HZ, PITCH_HZ, FrameFeatures, bar_means

MEL_PARTS, PITCH_PARTS, RISE_PARTS = 8, 4, 4  # parts of a bar
RISE_BANDS = (0, 5, 15, 25)  # first mel band of each of the bands in which rises are summed up
Matrix = Float[np.ndarray, "bar bar"]


@dataclass(frozen=True)
class BarFeatures:
    """What every bar sounds like, (bar, part, band): log mel bands, chroma, pitches, and how much the frames
    of four bands rise (log10 of amplitude a frame). edges: (bar + 1,) seconds."""

    edges: Float[np.ndarray, " edge"]
    mel: Float[np.ndarray, "bar part mel"]
    chroma: Float[np.ndarray, "bar part 12"]
    pitch: Float[np.ndarray, "bar part pitch"]
    rise: Float[np.ndarray, "bar part 4"]

    def __len__(self) -> int:
        return len(self.mel)


def bar_features(frames: FrameFeatures, edges: Float[np.ndarray, " edge"]) -> BarFeatures:
    """The frames of a track by bars. edges: seconds at which bars begin, and at which the last one ends."""
    pitch = bar_means(frames.pitch, PITCH_HZ, edges, PITCH_PARTS)
    loud = np.maximum(0.0, pitch - np.median(pitch, axis=-1, keepdims=True))  # what stands out of each moment
    chroma = loud.reshape(*loud.shape[:2], -1, 12).sum(axis=2)
    rises = np.maximum(0.0, np.diff(frames.mel, axis=0, prepend=frames.mel[:1]))
    rises = np.add.reduceat(rises, RISE_BANDS, axis=1) / np.diff([*RISE_BANDS, rises.shape[1]])
    rise = bar_means(rises, MEL_HZ, edges, RISE_PARTS)
    return BarFeatures(edges, bar_means(frames.mel, MEL_HZ, edges, MEL_PARTS), chroma, loud, rise)


def similarities(bars: BarFeatures) -> dict[str, Matrix]:
    """Similarity of every two bars in [-1, 1], by view: `mel` and `chroma` and `pitch` compare the course
    of a bar, `timbre` its mean spectrum with its level, `rhythm` where energy rises."""
    mel = bars.mel
    rise = (
        np.maximum(0.0, np.diff(mel, axis=1, prepend=mel[:, :1]))
        .reshape(len(bars), MEL_PARTS, -1, 8)
        .mean(axis=3)
    )
    return {
        "mel": _cosine(mel),
        "chroma": _cosine(bars.chroma),
        "pitch": _cosine(bars.pitch),
        "timbre": _near(mel.mean(axis=1)),
        "rhythm": _cosine(rise),
    }


def _cosine(x: Float[np.ndarray, "bar ..."]) -> Matrix:
    """Cosines of bars around the mean bar of the track; bars that equal it are like one another and nothing
    else."""
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(axis=0)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    even = norm <= 1e-6
    unit = np.where(even, 0.0, flat / np.maximum(norm, 1e-6))
    result: Matrix = unit @ unit.T + even * even.T
    return result


def _near(x: Float[np.ndarray, "bar band"]) -> Matrix:
    """2 exp(-d / median d) - 1 of Euclidean distances d."""
    squares = (x * x).sum(axis=1)
    distance = np.sqrt(np.maximum(0.0, squares[:, None] + squares[None, :] - 2 * x @ x.T))
    typical = float(np.median(distance)) or 1.0
    result: Matrix = 2 * np.exp(-distance / typical) - 1
    return result
