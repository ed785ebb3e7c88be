"""Labelled moments that are probably wrong: beats that nothing sounds at, and beats that the labels lack.

A light model of the spectrum around each moment is fitted to the annotated tracks of other groups and gives
every frame of a track a probability (out of fold: no track is judged by a model that saw its group). A
labelled moment is an example of the class "event", a peak of the curve without a label one of the class
"nothing"; confident learning (cleanlab) ranks both by how little the label agrees with the probability. A
moment that is doubted beside a peak without a label was perhaps shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import SAMPLE_RATE, load
from beatmeter.datasets.annotations.records import Grid
from beatmeter.errors import AudioError, DataError
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Track

RATE = 50  # frames a second
TOLERANCE = 0.04  # seconds between a labelled moment and what the curve says of it
APART = 0.1  # seconds from every label that a peak without one is at least
SHIFT = 0.3  # seconds that a moment may have been moved
_CONTEXT = 6  # frames on either side that the model sees
_BANDS = 40
_MOST = 60_000  # frames that the model is fitted to
FOLDS = 5


@dataclass(frozen=True)
class Doubt:
    """One doubted moment: a label at `time` (s) that should perhaps be at `suggested` (nan: nowhere), or,
    with `time` nan, a label that is perhaps lacking at `suggested`. `quality` in [0, 1] is cleanlab's; the
    lowest is the worst."""

    id: str
    time: float
    suggested: float
    quality: float

    @property
    def kind(self) -> str:
        """missing, shifted or wrong."""
        return "missing" if np.isnan(self.time) else "wrong" if np.isnan(self.suggested) else "shifted"


def out_of_fold(
    tracks: Sequence[Track],
    grids: Mapping[str, Grid],
    seed: int = 0,
    progress: Reporter = SILENT,
    refused: Callable[[AudioError], None] | None = None,
) -> dict[str, Float[np.ndarray, " frame"]]:
    """The probability of a beat in every frame of every track, by models that saw no track of its group.

    Tracks whose audio cannot be used are left out, and `refused` is told why; without it: AudioError.
    Raises DataError for fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.preprocessing import StandardScaler

    _require_groups(tracks)
    heard = []
    with progress.track("listening", len(tracks), "tracks") as tick:
        for track in tracks:
            try:
                heard.append((track, _spectra(load(track.path))))
            except AudioError as error:
                if refused is None:
                    raise
                refused(error)
            tick(1)
    tracks, inputs = [track for track, _ in heard], [x for _, x in heard]
    _require_groups(tracks)
    groups = [track.group for track in tracks]
    targets = [_targets(grids[t.id], len(x)) for t, x in zip(tracks, inputs, strict=True)]
    rng = np.random.default_rng(seed)
    curves: dict[str, np.ndarray] = {}
    folds = GroupKFold(min(FOLDS, len(set(groups))))
    for train, test in folds.split(groups, groups=groups):
        rows = [(i, frame) for i in train for frame in np.flatnonzero(targets[i] >= 0)]
        chosen = rng.permutation(len(rows))[:_MOST]
        x = np.stack([_around(inputs[rows[k][0]], rows[k][1]) for k in chosen])
        y = np.array([targets[rows[k][0]][rows[k][1]] for k in chosen])
        if len(set(y.tolist())) < 2:
            raise DataError("the annotations of a fold hold no moment, or nothing else", "Give more tracks.")
        scale = StandardScaler().fit(x)
        model = LogisticRegression(C=0.003, max_iter=60, tol=1e-3).fit(scale.transform(x), y)
        for i in test:
            frames = np.stack([_around(inputs[i], frame) for frame in range(len(inputs[i]))])
            curves[tracks[i].id] = model.predict_proba(scale.transform(frames))[:, 1]
    return curves


def _require_groups(tracks: Sequence[Track]) -> None:
    if len({track.group for track in tracks}) < 2:
        few = f"there {'is one group' if tracks else 'are none'}"
        raise DataError(f"moments are judged by models of other groups, and {few}", "Give more tracks.")


def rank_events(curves: Mapping[str, Float[np.ndarray, " frame"]], grids: Mapping[str, Grid]) -> list[Doubt]:
    """Labelled moments and peaks without a label, the most doubtful first. Raises DataError without
    cleanlab."""
    from beatmeter.experiments.audit.suspects import require_cleanlab

    require_cleanlab()
    from cleanlab.rank import get_label_quality_scores

    found: list[tuple[str, float, float, int]] = []  # id, time, probability, label
    for id, curve in curves.items():
        grid = grids[id]
        seconds = np.arange(len(curve)) / RATE
        inside = grid.times[(grid.times >= 0) & (grid.times <= seconds[-1])]
        scores = [float(curve[np.abs(seconds - time) <= TOLERANCE].max(initial=0.0)) for time in inside]
        found += [(id, time, p, 1) for time, p in zip(inside.tolist(), scores, strict=True)]
        for peak in _peaks(curve):
            time = float(seconds[peak])
            alone = np.abs(grid.times - time).min(initial=np.inf) >= APART
            if alone and bool(grid.is_known(np.array([time]))[0]):
                found.append((id, time, float(curve[peak]), 0))
    if not found:
        return []
    p = _against_own_track(found)
    labels = np.array([label for *_, label in found])
    quality = get_label_quality_scores(labels, np.stack([1 - p, p], axis=1), method="self_confidence")
    doubts = []
    for (id, time, _, label), q in zip(found, quality.tolist(), strict=True):
        if not label:
            doubts.append(Doubt(id, float("nan"), time, q))
            continue
        near = [(abs(t - time), t) for other, t, _, is_label in found if other == id and not is_label]
        distance, at = min(near, default=(np.inf, 0.0))
        doubts.append(Doubt(id, time, at if distance <= SHIFT else float("nan"), q))
    return sorted(doubts, key=lambda doubt: doubt.quality)


def without_echoes(doubts: Sequence[Doubt]) -> list[Doubt]:
    """Doubts without beats that are lacking where another beat should perhaps be: a beat that was shifted
    leaves both, and one decision answers them. Both ranked, the two stand where the worse one stood."""
    shifted: dict[tuple[str, float], Doubt] = {}
    for doubt in doubts:
        if doubt.kind == "shifted":
            shifted.setdefault((doubt.id, doubt.suggested), doubt)
    found: dict[tuple[str, float, float], Doubt] = {}
    for doubt in doubts:
        own = shifted.get((doubt.id, doubt.suggested), doubt) if doubt.kind == "missing" else doubt
        key = (own.id, -1.0 if own.kind == "missing" else own.time, own.suggested)
        found.setdefault(key, replace(own, quality=min(own.quality, doubt.quality)))
    return list(found.values())


def _against_own_track(found: Sequence[tuple[str, float, float, int]]) -> np.ndarray:
    """Probabilities whose log-odds are moved so that the labelled moments of every track have one median:
    in some music every beat is faint, and a faint one is no doubt there."""
    odds = np.array([np.log(max(p, 1e-6) / max(1 - p, 1e-6)) for _, _, p, _ in found])
    ids = np.array([id for id, *_ in found])
    labelled = np.array([label == 1 for *_, label in found])
    middle = np.median(odds[labelled]) if labelled.any() else 0.0
    for id in set(ids.tolist()):
        own = odds[(ids == id) & labelled]
        odds[ids == id] += middle - (np.median(own) if len(own) else middle)
    probabilities: np.ndarray = 1 / (1 + np.exp(-odds))
    return probabilities


def _spectra(wave: np.ndarray) -> np.ndarray:
    """Log mel bands and their rise, (frame, 2 x band)."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=1024, hop_length=SAMPLE_RATE // RATE, n_mels=_BANDS
    )
    logs = np.log1p(1000 * np.sqrt(mel.T))
    rise = np.maximum(logs[1:] - logs[:-1], 0)
    return np.concatenate([logs, np.concatenate([np.zeros((1, _BANDS)), rise])], axis=1).astype(np.float32)


def _around(x: np.ndarray, frame: int) -> np.ndarray:
    at = np.clip(np.arange(frame - _CONTEXT, frame + _CONTEXT + 1), 0, len(x) - 1)
    flat: np.ndarray = x[at].reshape(-1)
    return flat


def _targets(grid: Grid, frames: int) -> np.ndarray:
    """1 within a frame of a moment, 0 elsewhere, -1 close to one and where nothing is known."""
    seconds = np.arange(frames) / RATE
    distance = np.abs(seconds[:, None] - grid.times).min(axis=1, initial=np.inf)
    targets = np.where(distance <= 0.6 / RATE, 1, np.where(distance <= 3 / RATE, -1, 0))
    return np.where(grid.is_known(seconds), targets, -1)


def _peaks(curve: np.ndarray) -> np.ndarray:
    from scipy.signal import find_peaks

    peaks: np.ndarray = find_peaks(curve, height=0.3, distance=round(APART * RATE))[0]
    return peaks
