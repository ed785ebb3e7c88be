"""Frames as sequences: padded batches with masks and times, the same from a store and from audio, and a head
that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import soundfile
import torch
from noisefolders import RATE, noise_source, write_noises
from torch import Tensor

from beatmeter.audio.chunking import Layout, row_spans
from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.errors import ConfigError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.backbones import load_backbone
from beatmeter.features.listening import TrackListener, WindowListener
from beatmeter.features.pooling import feature_spec
from beatmeter.features.poolings import pooling_of
from beatmeter.features.poolings.sequences import MASK, TIMES, join, mask_of, pad, real_rows
from beatmeter.features.tracks import Excerpt, TrackEncoder
from beatmeter.learning.loop import fit_standardisation
from beatmeter.learning.model import Model
from beatmeter.learning.sources import Source, in_order
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.serving.scoring import RunScorer
from beatmeter.settings import FeatureConfig, RunConfig
from beatmeter.tasks import TASKS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of many lengths, louder and softer every second."""
    return write_noises(tmp_path_factory.mktemp("sequences"), (1.7, 5.1, 9.3, 16.0, 31.2, 12.0))


def opened(
    lengths: Path, cache: Path, regime: str, overlap: float = 0.0, **augment: float
) -> tuple[RunConfig, list[Track], Source]:
    values = {
        "features": {"poolings": ("stats", "beats=frames:2+4@25", "form=frames:1@5"), "overlap": overlap},
        "head": {"poolings": ("stats", "beats", "form"), "channels": 8, "dilations": (1, 2), "hidden": 8},
    }
    config, tracks, source = noise_source(lengths, cache, regime, values, augment)
    source.encoder.eval()
    return config, tracks, source


def features(
    source: Source, tracks: list[Track], seed: tuple[int, ...] | None, size: int
) -> dict[str, Tensor]:
    with torch.inference_mode():
        return join(
            [source.features(b) for b in source.batches(tracks, in_order(len(tracks), size), seed)],
            ("stats", "beats", "form"),
        )


@pytest.mark.parametrize("overlap", [0.0, 1.0])
@pytest.mark.parametrize("seed", [None, (5, 1)])
def test_a_store_and_audio_give_the_same_sequences(
    seed: tuple[int, ...] | None, overlap: float, lengths: Path, tmp_path: Path
) -> None:
    _, tracks, frozen = opened(lengths, tmp_path, "frozen", overlap)
    _, _, streamed = opened(lengths, tmp_path, "streamed", overlap)
    stored, made = features(frozen, tracks, seed, 6), features(streamed, tracks, seed, 2)
    assert stored["beats"].shape[2:] == (2, frozen.spec.dim)
    assert stored["form"].shape[2:] == (1, frozen.spec.dim)
    for name, step in (("beats", 3), ("form", 15)):  # frames of two rates side by side
        rows, times, mask = (stored[name + part] for part in ("", TIMES, MASK))
        assert torch.equal(mask, made[name + MASK])
        torch.testing.assert_close(times[mask], made[name + TIMES][mask])
        off = (rows[mask] - made[name][mask]).abs().max()
        assert off < 5e-3 * rows.abs().max()  # the store keeps float16
        assert bool((rows[~mask] == 0).all())
        assert bool(times[~mask].isnan().all())
        for i, track in enumerate(tracks):
            if seed is None:
                samples = round(soundfile.info(track.path).duration * RATE)
                layout = Layout.of(samples, frozen.spec)
                where, _ = pooling_of(frozen.spec[name]).rows(layout)
                np.testing.assert_allclose(times[i][mask[i]].numpy(), row_spans(where, frozen.spec))
                heard = layout.frame_times()[0, :step].mean()  # the centre of what the first frames see
                assert float(times[i][0].mean()) == pytest.approx(heard, abs=1e-9)
            if overlap:
                assert (np.diff(times[i][mask[i], 0].numpy()) * 75).round(6).tolist() == [step] * (
                    int(mask[i].sum()) - 1
                )
    if seed is not None:
        whole = features(frozen, tracks, None, 6)["beats.mask"]
        assert (stored["beats.mask"].sum(1) < whole.sum(1)).all(), "every track is cropped"


def test_frames_of_audio_that_comes_in_blocks_are_those_of_the_whole(lengths: Path, tmp_path: Path) -> None:
    _, _, streamed = opened(lengths, tmp_path, "streamed", 1.0)
    wave = np.random.default_rng(1).normal(0, 0.1, round(41.3 * RATE)).astype(np.float32)
    encoder = cast(TrackEncoder, streamed.encoder)
    with torch.inference_mode():
        whole = encoder([Excerpt(wave)])
        listener = TrackListener({"": encoder.encode}, len(wave), CPU)
        for block in np.array_split(wave, 37):
            listener.push(block)
        heard = listener.finish()[""]
    assert heard.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(heard[name], value, rtol=1e-4, atol=1e-4)


def test_the_middle_of_a_chunk_is_the_frame_that_is_kept(lengths: Path, tmp_path: Path) -> None:
    """Frames of the joined track, by hand: every one from the chunk that has it further from an edge."""
    _, _, streamed = opened(lengths, tmp_path, "streamed", 2.0)
    wave = np.random.default_rng(1).normal(0, 0.1, round(14.2 * RATE)).astype(np.float32)
    encoder = cast(TrackEncoder, streamed.encoder)
    layout = Layout.of(len(wave), streamed.spec)
    with torch.inference_mode():
        found = encoder([Excerpt(wave)])["form"][0, :, 0]
        chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts]))
        states = encoder.encode.states(chunks)[1].numpy()
    first = np.array(layout.starts) // layout.hop
    last = first[-1] + layout.frames
    frames = []
    for at in range(last):
        margins = np.minimum(at - first, first + layout.frames - 1 - at).astype(float)
        margins[0] = at if at < layout.frames / 2 else margins[0]
        frames.append(states[margins.argmax(), at - first[margins.argmax()]])
    expected = np.stack([np.mean(frames[a : a + 15], axis=0) for a in range(0, last, 15)])
    seams = [round(edge / 15) for edge in (first[1:] + first[:-1] + layout.frames) // 2]
    clear = [i for i in range(len(expected)) if all(abs(i - s) > 1 for s in seams)]  # rows do not cross seams
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy()[clear], expected[clear], rtol=1e-4, atol=1e-4)


def test_lag_and_overlapping_chunks_refuse_each_other() -> None:
    config = FeatureConfig(backbone="embedded", poolings=("lag", "beats=frames@25"), overlap=1.0)
    with pytest.raises(ConfigError, match=r"pooling 'lag' joins whole chunks, and features.overlap = 1"):
        feature_spec(load_backbone("embedded", weights=False), config, "float32")


def test_a_row_longer_than_what_chunks_share_is_refused() -> None:
    config = FeatureConfig(backbone="embedded", poolings=("beats=frames@1",), overlap=1.0)
    with pytest.raises(ConfigError, match=r"1 Hz is too low for chunks that share 1 s"):
        feature_spec(load_backbone("embedded", weights=False), config, "float32")


@pytest.mark.parametrize("overlap", [-1.0, 4.5, float("nan")])
def test_an_overlap_that_leaves_no_chunk_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match=r"features.overlap = .* is not possible"):
        FeatureConfig(overlap=overlap)


@pytest.mark.parametrize("overlap", [0.0, 1.0])
def test_windows_do_not_slide_over_frames(overlap: float, lengths: Path, tmp_path: Path) -> None:
    _, _, streamed = opened(lengths, tmp_path, "streamed", overlap)
    with pytest.raises(ConfigError, match=r"reads frames \(beats, form\): it cannot hear windows"):
        WindowListener({"": cast(TrackEncoder, streamed.encoder).encode}, CPU)


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
    heard = row_spans(np.zeros((1, 2)), streamed.spec)[0, 0]  # from the first sample to where the row stands
    torch.testing.assert_close(found["beats.times"][:, 0, 0] - heard, cut.double(), rtol=0, atol=1e-4)


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
