"""What a model makes of music and of sounds without meter: the material from which `calibrate` learns to tell
them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.ahead import decode_ahead
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth.meterless import FITTED, render_meterless
from beatmeter.errors import AudioError, DataError, RunError, shown
from beatmeter.evaluation.calibration import Calibration, Presence
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions, Track
from beatmeter.serving.models import EnsembleFolder
from beatmeter.serving.predictor import RunScorer, Scorer

MUSIC = 600  # tracks of validation at most
LENGTHS = (
    5.0,
    7.5,
    10.0,
    15.0,
    20.0,
    30.0,
)  # seconds that are heard of music and sounds: whoever asks may have less than a clip


def fit_presence(
    model: Path,
    validation: ClassPredictions,
    device: torch.device,
    sounds: int,
    seed: int = 0,
    data: Path | None = None,
    progress: Reporter = SILENT,
) -> Presence:
    """How `model` tells music from sound without meter: by the music of its validation predictions and as
    many generated `sounds`.

    `data` is where the data set of the run lies now. An ensemble takes the mean of its members' log odds, by
    their weights. Raises RunError for a member that was not calibrated so, and when the data set is not
    there; DataError when it is another one.
    """
    if EnsembleFolder(model).exists():
        return _joined(EnsembleFolder(model))
    scorer = RunScorer(model, device)
    music = _music(RunFolder.open(model), validation, data)
    per_kind = -(-sounds // len(FITTED))
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in FITTED for _ in range(per_kind)]
    with progress.track("hearing music and sounds without meter", len(music) + len(kinds)) as tick:
        heard, groups = _hear_music(scorer, music, rng, tick)
        noise = np.stack(
            [
                _hear_sound(scorer, seed * per_kind + i % per_kind, kind, rng, tick)
                for i, kind in enumerate(kinds)
            ]
        )
    return Presence.fit(heard, groups, noise, kinds)


def _joined(folder: EnsembleFolder) -> Presence:
    ensemble, runs = folder.ensemble(), folder.runs()
    parts = {}
    for name in ensemble.used:
        file = RunFolder(runs[name]).calibration
        presence = Calibration.load(file).presence if file.exists() else None
        if presence is None:
            raise RunError(
                f"the member {name} cannot tell music from sound without meter",
                f"Run `beatmeter calibrate {runs[name]}` first.",
            )
        parts[name] = presence
    return Presence.join(parts, ensemble.weights or dict.fromkeys(parts, 1.0))


def _music(folder: RunFolder, validation: ClassPredictions, data: Path | None) -> list[Track]:
    """The labelled tracks of these predictions, found in the data of the run: all, or `MUSIC` of them at
    equal distances."""
    config = folder.placed(None if data is None else str(data))
    folder.require_data(config)
    wanted = {id for id, primary in zip(validation.ids, validation.primary, strict=True) if primary >= 0}
    tracks = [
        t for t in open_dataset(config.data.path, config.data, validation.classes).tracks if t.id in wanted
    ]
    if not tracks:
        raise DataError(
            f"none of the {len(wanted)} validation tracks of {shown(folder.path)} is in "
            f"{shown(config.data.path)}",
            "Say where they lie: --data DIR; or calibrate without them: --sounds 0.",
        )
    return [tracks[i] for i in np.unique(np.linspace(0, len(tracks) - 1, MUSIC).astype(int))]


def _hear_music(
    scorer: Scorer, tracks: Sequence[Track], rng: np.random.Generator, tick: Callable[[int], object]
) -> tuple[Float[np.ndarray, "item value"], list[str]]:
    """Evidence of an excerpt of every track, and the groups of the tracks. Files that cannot be read are left
    out, as in training."""
    evidence, groups = [], []
    for track, wave in zip(
        tracks, decode_ahead([t.path for t in tracks], scorer.sample_rate, jobs=0), strict=True
    ):
        size = int(rng.choice(LENGTHS) * scorer.sample_rate)
        place = rng.random()
        tick(1)
        if isinstance(wave, AudioError):
            continue
        first = int(place * max(0, len(wave) - size))
        evidence.append(scorer.hear(wave[first : first + size]).evidence)
        groups.append(track.group)
    return np.array(evidence), groups


def _hear_sound(
    scorer: Scorer, seed: int, kind: str, rng: np.random.Generator, tick: Callable[[int], object]
) -> Float[np.ndarray, " value"]:
    sound = render_meterless(seed, kind, seconds=float(rng.choice(LENGTHS)), sample_rate=scorer.sample_rate)
    tick(1)
    return scorer.hear(sound).evidence
