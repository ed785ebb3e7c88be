"""What a model makes of music and of sounds without meter: the material from which `calibrate` learns to tell
them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.ahead import decode_ahead
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth.meterless import FITTED, render_meterless
from beatmeter.errors import AudioError, DataError, RunError, shown
from beatmeter.evaluation.calibration import Calibration, Pairs, Presence
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions, Track
from beatmeter.serving.answer import Scored
from beatmeter.serving.models import EnsembleFolder
from beatmeter.serving.scoring import RunScorer, Scorer, witness_of_pairs

MUSIC = 600  # tracks of validation at most
WHOLE = 30.0  # seconds of every track that are heard, and once more an excerpt of it
EXCERPTS = (5.0, 7.5, 10.0, 15.0, 20.0)
FIRST = 5000  # seed of the first sound of each kind; tools and tests measure with others
OF_MUSIC, OF_SOUNDS = 7, 8  # streams of random draws


def fit_by_hearing(
    model: Path,
    validation: ClassPredictions,
    device: torch.device,
    sounds: int,
    seed: int = 0,
    data: Path | None = None,
    progress: Reporter = SILENT,
) -> tuple[Presence, Pairs | None]:
    """How `model` tells music from sound without meter: by the music of its validation predictions and as
    many generated `sounds`. And how it tells two meters from one, by the same music, where it learned that.

    `data` is where the data set of the run lies now. An ensemble takes the mean of its members' log odds, by
    their weights, and of two meters what one member says. Raises RunError for a member that was not
    calibrated so, and when the data set is not there; DataError when it is another one.
    """
    if EnsembleFolder(model).exists():
        return _joined(EnsembleFolder(model))
    scorer = RunScorer(model, device)
    music = _music(RunFolder.open(model), validation, data)
    per_kind = -(-sounds // len(FITTED))
    kinds = [kind for kind in FITTED for _ in range(per_kind)]
    with progress.track("hearing music and sounds without meter", len(music) + len(kinds)) as tick:
        heard = _hear_music(scorer, music, seed, tick)
        noise = [
            _hear_sound(scorer, n, kind, seed * per_kind + i, tick)
            for n, kind in enumerate(FITTED)
            for i in range(per_kind)
        ]
    evidence = [part.evidence for _, parts in heard for part in parts]
    groups = [track.group for track, parts in heard for _ in parts]
    told = [(whole.two, len(track.labels) > 1) for track, (whole, *_) in heard if whole.two is not None]
    pairs = Pairs.fit([chance for chance, _ in told], [double for _, double in told])
    return Presence.fit(np.array(evidence), groups, np.stack(noise), kinds), pairs


def _joined(folder: EnsembleFolder) -> tuple[Presence, Pairs | None]:
    ensemble, runs = folder.ensemble(), folder.runs()
    parts: dict[str, Presence] = {}
    pairs: dict[str, Pairs | None] = {}
    for name in ensemble.used:
        file = RunFolder(runs[name]).calibration
        calibration = Calibration.load(file) if file.exists() else None
        if calibration is None or calibration.presence is None:
            raise RunError(
                f"the member {name} cannot tell music from sound without meter",
                f"Run `beatmeter calibrate {runs[name]}` first.",
            )
        parts[name], pairs[name] = calibration.presence, calibration.pairs
    knowing = witness_of_pairs(ensemble, [n for n in parts if RunFolder(runs[n]).config().task.two_meters])
    joined = Presence.join(parts, ensemble.weights or dict.fromkeys(parts, 1.0))
    return joined, pairs[knowing] if knowing else None


def _music(folder: RunFolder, validation: ClassPredictions, data: Path | None) -> dict[int, Track]:
    """The labelled tracks of these predictions, found in the data of the run, by their position among them:
    all, or `MUSIC` of them at equal distances."""
    config = folder.resolved(None if data is None else str(data))
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
    positions = np.unique(np.linspace(0, len(tracks) - 1, MUSIC).astype(int)).tolist()
    return {i: tracks[i] for i in positions}


def _hear_music(
    scorer: Scorer, tracks: Mapping[int, Track], seed: int, tick: Callable[[int], object]
) -> list[tuple[Track, list[Scored]]]:
    """What is heard in every track and in an excerpt of it. Files that cannot be read are left out, as in
    training."""
    heard = []
    waves = decode_ahead([t.path for t in tracks.values()], scorer.sample_rate, jobs=0)
    for (position, track), wave in zip(tracks.items(), waves, strict=True):
        tick(1)
        if isinstance(wave, AudioError):
            continue
        rng = np.random.default_rng([OF_MUSIC, position, *([seed] if seed else [])])
        size = int(rng.choice(EXCERPTS) * scorer.sample_rate)
        first = int(rng.random() * max(0, len(wave) - size))
        parts = wave[: int(WHOLE * scorer.sample_rate)], wave[first : first + size]
        heard.append((track, [scorer.hear(part) for part in parts]))
    return heard


def _hear_sound(
    scorer: Scorer, number: int, kind: str, i: int, tick: Callable[[int], object]
) -> Float[np.ndarray, " value"]:
    """Evidence of the sound `i` of a kind, the `number`-th."""
    seconds = float(np.random.default_rng([OF_SOUNDS, i, number]).choice((*EXCERPTS, WHOLE)))
    sound = render_meterless(FIRST + i, kind, seconds=seconds, sample_rate=scorer.sample_rate)
    tick(1)
    return scorer.hear(sound).evidence
