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
from beatmeter.datasets.splits import read_split
from beatmeter.datasets.synth.meterless import FITTED, render_meterless
from beatmeter.errors import AudioError, DataError, RunError, shown
from beatmeter.evaluation.calibration import Calibration, Pairs, Presence
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions, Track
from beatmeter.serving.answer import Scored
from beatmeter.serving.models import EnsembleFolder
from beatmeter.serving.scoring import RunScorer, Scorer, witness_of_pairs
from beatmeter.settings import DataConfig

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
    music: Path | None = None,
    progress: Reporter = SILENT,
) -> tuple[Presence, Pairs | None]:
    """How `model` tells music from sound without meter: by the music of its validation predictions and as
    many generated `sounds`. And how it tells two meters from one, by the same music, where it learned that.

    `data` is where the data set of the run lies now. `music` is a data set whose validation split is heard
    too: it is what most music is like, and sets the threshold. An ensemble takes the mean of its members' log
    odds, by their weights, and of two meters what one member says. Raises RunError for a member that was not
    calibrated so, for an ensemble and `music`, and when the data set is not there; DataError when it is
    another one.
    """
    if EnsembleFolder(model).exists():
        if music:
            raise RunError(
                f"{shown(model)} is an ensemble: when there is a meter, its members know",
                "Give --music to the calibration of its members.",
            )
        return _joined(EnsembleFolder(model))
    scorer = RunScorer(model, device)
    folder = RunFolder.open(model)
    tracks = [*_music(folder, validation, data).items()]
    own = len(tracks)
    if music:
        tracks += _other_music(folder, music, validation.classes).items()
    per_kind = -(-sounds // len(FITTED))
    kinds = [kind for kind in FITTED for _ in range(per_kind)]
    with progress.track("hearing music and sounds without meter", len(tracks) + len(kinds)) as tick:
        heard = _hear_music(scorer, tracks, seed, tick)
        noise = [
            _hear_sound(scorer, n, kind, seed * per_kind + i, tick)
            for n, kind in enumerate(FITTED)
            for i in range(per_kind)
        ]
    others = {track.id for _, track in tracks[own:]}
    evidence = [part.evidence for _, parts in heard for part in parts]
    groups = [track.group for track, parts in heard for _ in parts]
    ordinary = np.array([track.id in others or not others for track, parts in heard for _ in parts])
    told = [(whole.two, len(track.labels) > 1) for track, (whole, *_) in heard if whole.two is not None]
    pairs = Pairs.fit([chance for chance, _ in told], [double for _, double in told])
    presence = Presence.fit(np.array(evidence), groups, np.stack(noise), kinds, ordinary=ordinary)
    return presence, pairs


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
    return _at_equal_distances(tracks)


def _other_music(folder: RunFolder, place: Path, classes: Sequence[str]) -> dict[int, Track]:
    """The same of the validation split of another data set. Raises DataError where it has none, and where the
    run learned from a track of it."""
    tracks = [t for t in open_dataset(place, DataConfig(), classes).tracks if t.split == "val"]
    if not tracks:
        raise DataError(
            f"{shown(place)} has no labelled track of a validation split",
            "Name a data set whose table has a column `split` with `val` in it.",
        )
    learned = _learned_from(folder)
    known = [t.id for t in tracks if t.id in learned]
    if known:
        raise DataError(
            f"{shown(folder.path)} learned from {len(known)} of the validation tracks of {shown(place)}, for "
            f"instance {known[0]}",
            "Name music that it never learned from.",
        )
    return _at_equal_distances(tracks)


def _learned_from(folder: RunFolder) -> set[str]:
    """The ids of the tracks that a run was trained on; none where it does not say so any more."""
    if not folder.split_file.exists():
        return set()
    return {id for id, split in read_split(folder.split_file).items() if split == "train"}


def _at_equal_distances(tracks: Sequence[Track]) -> dict[int, Track]:
    positions = np.unique(np.linspace(0, len(tracks) - 1, MUSIC).astype(int)).tolist()
    return {i: tracks[i] for i in positions}


def _hear_music(
    scorer: Scorer, tracks: Sequence[tuple[int, Track]], seed: int, tick: Callable[[int], object]
) -> list[tuple[Track, list[Scored]]]:
    """What is heard in every track and in an excerpt of it, which its position draws. Files that cannot be
    read are left out, as in training."""
    heard = []
    waves = decode_ahead([track.path for _, track in tracks], scorer.sample_rate, jobs=0)
    for (position, track), wave in zip(tracks, waves, strict=True):
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
