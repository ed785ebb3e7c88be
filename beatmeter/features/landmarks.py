"""The harmony embedding: how well a recording aligns with each of some hundred landmarks, as one vector.

Landmarks are the pitch classes of short synthetic pieces. With a(k) the alignment score of a recording with
landmark k (best of twelve keys, see `alignment`), the vector is

    v = W z,    z_k = (y_k - m_k) / d_k,    y = log(a + 0.5), minus its mean and divided by its standard
    deviation over k,

of length 1. What two versions of a work share, in any key and tempo, aligns with the same landmarks. W
whitens what differs between versions of a work (within-class covariance normalisation, Hatch 2006); m, d
and W are found on synthetic versions alone. Alignment needs no beats, and a landmark is heard wherever it
is in a track.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import RunError, SchemaError
from beatmeter.features.alignment import RULE, Chroma, ready, scores
from beatmeter.runtime.artifacts import read_bytes, read_json, require, write_json
from beatmeter.runtime.atomic import write_bytes

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "harmony"
FLOOR = (
    0.5  # added to scores before the logarithm: what does not align at all is not far below what barely does
)
AVERAGE = 2  # rows of 4 Hz chroma that make a frame of alignment
ARRAYS, ABOUT = "model.npz", "model.json"


@dataclass(frozen=True)
class Landmarks:
    """`pieces` are the landmarks, `ready` for alignment at 2 Hz; `mean` and `deviation` (landmark,) and
    `matrix` (landmark, dim) map the scores; `about` says how they were found."""

    pieces: tuple[Chroma, ...]
    mean: Float[np.ndarray, " landmark"]
    deviation: Float[np.ndarray, " landmark"]
    matrix: Float[np.ndarray, "landmark dim"]
    about: dict[str, Any]

    def aligned(self, chroma: Float[np.ndarray, "row 12"]) -> Float[np.ndarray, " landmark"]:
        """The score of every landmark with 4 Hz pitch classes. Raises SchemaError as `alignment.ready`."""
        return scores(ready(chroma, AVERAGE), self.pieces)

    def embed(self, aligned: Float[np.ndarray, " landmark"]) -> Float[np.ndarray, " dim"]:
        """The vector, float32, of length 1; 0 where all landmarks fit alike, as they do where nothing
        sounds."""
        heard = levelled(aligned)
        if not heard.any():
            return np.zeros(self.matrix.shape[1], np.float32)
        # float64, and one product a track: the same bits whatever else is embedded
        vector = ((heard - self.mean) / self.deviation) @ self.matrix
        unit: np.ndarray = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
        return unit

    @property
    def digest(self) -> str:
        """Hex sha256 of what decides the vectors."""
        found = hashlib.sha256()
        for array in (RULE.numbers, *self.pieces, self.mean, self.deviation, self.matrix):
            found.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return found.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the two files of a model. Raises OSError."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            pieces=np.concatenate(self.pieces).astype(np.float16),
            lengths=np.array([len(p) for p in self.pieces]),
            mean=self.mean.astype(np.float32),
            deviation=self.deviation.astype(np.float32),
            matrix=self.matrix.astype(np.float16),
        )
        write_bytes(folder / ARRAYS, buffer.getvalue())
        write_json(folder / ABOUT, self.about)

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> Landmarks:
        """The model of a folder, the one that ships by default. Raises RunError."""
        hint = "Make it with `beatmeter similarity fit`."
        about = read_json(folder / ABOUT, RunError, hint)
        require(about, {"kind": str}, str(folder / ABOUT))
        if about.get("alignment") != asdict(RULE):
            raise RunError(f"{folder} was made for another rule of alignment than {asdict(RULE)}", hint)
        data = read_bytes(folder / ARRAYS, RunError)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            pieces = np.split(arrays["pieces"].astype(np.float32), np.cumsum(arrays["lengths"])[:-1])
            mean, deviation, matrix = (
                arrays[name].astype(np.float64) for name in ("mean", "deviation", "matrix")
            )
            model = cls(tuple(ready(p) for p in pieces), mean, deviation, matrix, about)
            fits = len(pieces) == len(mean) == len(deviation) == len(matrix) and np.isfinite(matrix).all()
        except (KeyError, ValueError, TypeError, SchemaError, zipfile.BadZipFile) as error:
            raise RunError(f"{folder / ARRAYS} is no model of harmony: {error}", hint) from None
        if not fits:
            raise RunError(
                f"{folder / ARRAYS} is no model of harmony: its arrays do not fit each other", hint
            )
        return model


def levelled(aligned: Float[np.ndarray, "*batch landmark"]) -> Float[np.ndarray, "*batch landmark"]:
    """log(scores + 0.5) in float64, minus its mean and divided by its standard deviation over the landmarks;
    0 where all landmarks fit alike."""
    y = np.log(np.asarray(aligned, dtype=np.float64) + FLOOR)
    y = y - y.mean(axis=-1, keepdims=True)
    spread = y.std(axis=-1, keepdims=True)
    result: np.ndarray = np.where(spread > 1e-9, y / np.maximum(spread, 1e-9), 0.0)
    return result


def whitened(heard: Float[np.ndarray, "item landmark"], works: Sequence[str], ridge: float) -> Landmarks:
    """The map of `levelled` scores of versions that whitens what differs inside works: W W' is the inverse of
    their covariance within works plus `ridge` times its mean variance. The result has no pieces yet. Raises
    SchemaError where no work has two versions."""
    names, member = np.unique(np.asarray(works), return_inverse=True)
    if len(names) == len(works) or len(names) < 2:
        raise SchemaError(
            f"{len(works)} versions of {len(names)} works: two works with two versions are the least"
        )
    mean, deviation = heard.mean(axis=0), np.maximum(heard.std(axis=0), 1e-6)
    z = (heard - mean) / deviation
    centres = np.stack([z[member == k].mean(axis=0) for k in range(len(names))])
    rest = z - centres[member]
    within = rest.T @ rest / (len(z) - len(names))
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    return Landmarks((), mean, deviation, vectors / np.sqrt(values), {})
