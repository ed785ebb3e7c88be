"""Frames as sequences: padded batches with masks and times, the same from a store and from audio, and a head
that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from beatmeter.audio.chunking import Layout
from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.poolings import pooling_of
from beatmeter.features.poolings.sequences import MASK, TIMES, join, mask_of, pad, real_rows
from beatmeter.learning.loop import Model, fit_standardisation
from beatmeter.learning.sources import Source, in_order, open_source
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.serving.predictor import RunScorer
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS

CPU = torch.device("cpu")
RATE = 24_000


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of many lengths, louder and softer every second."""
    folder = tmp_path_factory.mktemp("sequences")
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((1.7, 5.1, 9.3, 16.0, 31.2, 12.0)):
        level = np.repeat(rng.uniform(0.05, 0.5, 40), RATE)[: round(seconds * RATE)]
        (folder / str((3, 4)[i % 2])).mkdir(exist_ok=True)
        soundfile.write(
            folder / str((3, 4)[i % 2]) / f"{i}.wav",
            level * rng.standard_normal(len(level)) * 0.2,
            RATE,
            subtype="PCM_16",
        )
    return folder


def opened(
    lengths: Path, cache: Path, regime: str, **augment: float
) -> tuple[RunConfig, list[Track], Source]:
    values: dict[str, Any] = {
        "regime": regime,
        "data": {"path": str(lengths)},
        "features": {
            "backbone": "embedded",
            "cache": str(cache),
            "poolings": ("stats", "beats=frames:2+4@25"),
            "layers": "1-2",
        },
        "head": {"poolings": ("stats", "beats"), "channels": 8, "dilations": (1, 2), "hidden": 8},
        "augment": {"crop": 1.0, "shift": 0.0, "noise": 0.0, "gain": 0.0, **augment},
    }
    config = change(RunConfig(), values)
    tracks = list(open_dataset(lengths, config.data, config.task.meters).tracks)
    source = open_source(config, CPU, lambda text: None)
    assert source.prepare(tracks, lambda text: None) == {}
    source.encoder.eval()
    return config, tracks, source


def features(
    source: Source, tracks: list[Track], seed: tuple[int, ...] | None, size: int
) -> dict[str, Tensor]:
    with torch.inference_mode():
        return join(
            [source.features(b) for b in source.batches(tracks, in_order(len(tracks), size), seed)],
            ("stats", "beats"),
        )


@pytest.mark.parametrize("seed", [None, (5, 1)])
def test_a_store_and_audio_give_the_same_sequences(
    seed: tuple[int, ...] | None, lengths: Path, tmp_path: Path
) -> None:
    _, tracks, frozen = opened(lengths, tmp_path, "frozen")
    _, _, streamed = opened(lengths, tmp_path, "streamed")
    stored, made = features(frozen, tracks, seed, 6), features(streamed, tracks, seed, 2)
    assert stored["beats"].shape[2:] == (2, frozen.spec.dim)
    assert torch.equal(stored["beats.mask"], made["beats.mask"])
    mask = stored["beats.mask"]
    torch.testing.assert_close(stored["beats.times"][mask], made["beats.times"][mask])
    assert (stored["beats"][mask] - made["beats"][mask]).abs().max() < 5e-3 * stored[
        "beats"
    ].abs().max()  # the store keeps float16
    assert bool((stored["beats"][~mask] == 0).all())
    assert bool(stored["beats.times"][~mask].isnan().all())
    if seed is None:
        for i, track in enumerate(tracks):
            samples = round(soundfile.info(track.path).duration * RATE)
            times, _ = pooling_of(frozen.spec["beats"]).rows(Layout.of(samples, frozen.spec))
            np.testing.assert_allclose(stored["beats.times"][i][mask[i]].numpy(), times, atol=1e-4)
    else:
        whole = features(frozen, tracks, None, 6)["beats.mask"]
        assert (mask.sum(1) < whole.sum(1)).all(), "every track is cropped"


def test_times_stay_those_of_the_track_when_the_grid_moves(lengths: Path, tmp_path: Path) -> None:
    _, tracks, streamed = opened(lengths, tmp_path, "streamed", crop=0.0, shift=0.5)
    batch = next(streamed.batches(tracks, [np.arange(len(tracks))], (5, 0)))
    found = streamed.features(batch)
    cut = torch.tensor(
        [
            soundfile.info(t.path).duration - len(e.wave) / RATE
            for t, e in zip(tracks, batch.inputs, strict=True)
        ]
    )
    assert cut.max() > 0.01
    torch.testing.assert_close(found["beats.times"][:, 0, 0], cut.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("regime", ["frozen", "streamed"])
def test_sequences_are_standardised_over_all_rows_and_padding_stays_zero(
    regime: str, lengths: Path, tmp_path: Path
) -> None:
    config, tracks, source = opened(lengths, tmp_path, regime)
    task = TASKS["meter"](config)
    fit_standardisation(Model(task, task.study(tracks), source, task.head(source.spec)), tracks, 4)
    found = features(source, tracks, None, 3)
    rows, mask = real_rows(found, "beats"), mask_of(found, "beats")
    assert mask is not None
    assert len(rows) == int(mask.sum())
    assert rows.mean(dim=0).abs().max() < 1e-2
    assert (rows.std(dim=0, correction=0) - 1).abs().max() < 1e-2
    assert bool((found["beats"][~mask] == 0).all())


def test_a_head_hears_the_rows_and_their_order_and_no_padding(lengths: Path, tmp_path: Path) -> None:
    config, tracks, source = opened(lengths, tmp_path, "frozen")
    torch.manual_seed(0)
    head = TASKS["meter"](config).head(source.spec).eval()
    found = features(source, tracks, None, 6)
    with torch.inference_mode():
        together = head(found)
        alone = torch.cat([head(features(source, [t], None, 1)) for t in tracks])
        backwards = [x[m].flip(0) for x, m in zip(found["beats"], found["beats" + MASK], strict=True)]
        turned = {**found, **pad("beats", backwards, list(found["beats" + TIMES]))}
        other = head(turned)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (other - together).abs().max() > 1e-4, "the order of time counts"


def test_a_run_reads_frames_and_predicts_what_it_evaluates(config: RunConfig, tmp_path: Path) -> None:
    config = change(
        config,
        {
            "features": {"poolings": ("lag", "beats=frames:1@5")},
            "head": {"poolings": ("beats", "lag")},
            "training": {"epochs": 2},
        },
    )
    run(config, tmp_path / "run", CPU, report=lambda text: None)
    evaluated = read_predictions(RunFolder(tmp_path / "run").predictions("test"))
    tracks = {t.id: t for t in open_dataset(Path(config.data.path), config.data, config.task.meters).tracks}
    scorer = RunScorer(tmp_path / "run", CPU)
    for i in range(3):
        heard = scorer.hear(load(tracks[evaluated.ids[i]].path)).scores
        np.testing.assert_allclose(heard, evaluated.scores[i], atol=5e-3)  # the store keeps float16
    assert np.ptp(evaluated.scores) > 1e-2
