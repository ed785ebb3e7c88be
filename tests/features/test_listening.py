"""Audio in blocks: features in flat memory are those of the whole wave, and each chunk is encoded once
however windows overlap."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meterfolders import music
from torch import Tensor

from beatmeter.audio.chunking import Cutter, Layout, chunk_starts
from beatmeter.audio.decode import load
from beatmeter.errors import AudioError, EvaluationError
from beatmeter.evaluation.timeline import windows
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.sharing import share_front_ends
from beatmeter.features.backbones.spectral import SpectralBackbone
from beatmeter.features.channels import SpectralChannels
from beatmeter.features.lag import LagPooling
from beatmeter.features.listening import TrackListener, WindowListener, listening_together
from beatmeter.features.pooling import Aggregation, Encoder, feature_spec
from beatmeter.features.poolings import Arrangement, pooling_of
from beatmeter.features.tracks import Excerpt, TrackEncoder
from beatmeter.schema import ChunkSpec, PoolingSpec
from beatmeter.serving.answer import Scored
from beatmeter.serving.models import SHIPPED, EnsembleFolder, shipped_models
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import RunScorer, share_encoders
from beatmeter.serving.streaming import MeterStream
from beatmeter.settings import FeatureConfig

CPU = torch.device("cpu")
RATE = 24_000


def encoder(name: str, window: int = 2) -> Encoder:
    backbone = load_backbone(name)
    config = FeatureConfig(
        backbone=name, poolings=("stats", "lag"), statistics=("mean", "max", "std"), window=window
    )
    return Encoder(backbone, feature_spec(backbone, config, "float32")).eval()


def blocks(wave: np.ndarray, seed: int) -> list[np.ndarray]:
    """The wave in blocks of random lengths, some of them empty."""
    edges = np.sort(np.random.default_rng(seed).integers(0, len(wave) + 1, 9))
    return np.split(wave, edges)


@settings(max_examples=60)
@given(
    st.integers(10, 400),
    st.lists(st.integers(0, 90), max_size=12),
    st.sampled_from([(50, 5, 0), (40, 4, 4), (28, 7, 7), (8, 8, 8)]),
)
def test_audio_in_blocks_is_cut_as_the_whole(
    samples: int, sizes: list[int], cut: tuple[int, int, int]
) -> None:
    hop, tail_min, grid = cut
    spec = ChunkSpec(sample_rate=10, length=53, hop=hop, tail_min=tail_min, minimum=10, grid=grid)
    wave = np.arange(samples, dtype=np.float32)
    edges = np.clip([0, *np.cumsum(sizes), samples], 0, samples)
    cutter = Cutter(spec, samples)
    chunks = [chunk for a, b in pairwise(edges) for chunk in cutter.push(wave[a:b])] + cutter.finish()
    assert [int(c[0]) for c in chunks] == chunk_starts(samples, spec)
    for chunk in chunks:
        assert np.array_equal(chunk, np.arange(chunk[0], chunk[0] + min(samples, spec.length)))


def test_another_length_than_was_said_is_told() -> None:
    for said in (99, 101):
        cutter = Cutter(ChunkSpec(sample_rate=10, length=53, hop=50, tail_min=5, minimum=10), said)
        with pytest.raises(AudioError, match="changed while it was read"):  # noqa: PT012 - either may notice
            cutter.push(np.zeros(100, dtype=np.float32))
            cutter.finish()


@pytest.mark.parametrize("statistics", [("mean", "max", "std"), ("std",)])
def test_rows_that_come_bit_by_bit_are_aggregated_as_all_at_once(
    statistics: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Aggregation, "most", 7)
    generator = torch.Generator().manual_seed(0)
    for p in (
        PoolingSpec(
            "stats",
            "stats",
            "chunk",
            (1, 2),
            ("pool", "dim"),
            (len(statistics), 5),
            {"statistics": list(statistics)},
        ),
        PoolingSpec("lag", "lag", "window", (1, 2), ("channel", "lag"), (3, 5), {}),
    ):
        values = torch.rand(100, *p.row_shape, generator=generator)
        frames = torch.randint(1, 400, (100,), generator=generator)
        total, at = Aggregation(p), 0
        for size in (1, 3, 40, 2, 6, 48):
            total.add(values[at : at + size], frames[at : at + size])
            at += size
            assert len(total._rows) <= 7
        torch.testing.assert_close(
            total.result(), pooling_of(p).aggregate(values, frames), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", ["spectral", "embedded"])
@pytest.mark.parametrize("seconds", [1.2, 4.0, 5.2, 11.0, 33.4])
def test_a_track_in_blocks_has_the_features_of_the_whole(name: str, seconds: float) -> None:
    ours = encoder(name)
    wave = music(3, seconds, RATE)
    with torch.inference_mode():
        whole = TrackEncoder(ours.backbone, ours.spec, CPU).eval()._together([Excerpt(wave)])
        listener = TrackListener({"a": ours}, len(wave), CPU)
        for block in blocks(wave, 1):
            listener.push(block)
        found = listener.finish()["a"]
    assert set(found) == {"stats", "lag"}
    for pooling, values in found.items():
        torch.testing.assert_close(values, whole[pooling], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model", [m for m in shipped_models()["models"] if EnsembleFolder(SHIPPED / m).exists()]
)
def test_shipped_models_answer_as_they_do_for_the_whole_track_at_once(model: str, tmp_path: Path) -> None:
    predictor = Predictor.load(SHIPPED / model)
    files = []
    for n, seconds in enumerate((1.5, 12.0, 41.0, 67.3)):
        files.append(tmp_path / f"{n}.wav")
        soundfile.write(files[-1], music(n, seconds, RATE), RATE)
    for path, answer in predictor.predict_files(files):
        with torch.inference_mode():
            said = {
                name: run.score(
                    TrackEncoder(run.encoder.encode.backbone, run.encoder.spec, CPU)
                    .eval()
                    ._together([Excerpt(load(path))])
                )
                for name, run in predictor.scorer.members.items()
            }
        expected = predictor.judge(predictor.classes, predictor.scorer.join(said), 1.0)
        assert np.abs(answer.scores - expected.scores).max() <= 1e-6  # type: ignore[union-attr]


def test_members_of_one_checkpoint_hold_and_compute_its_front_end_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Tensor] = []
    embed = Hubert.embed
    monkeypatch.setattr(Hubert, "embed", lambda self, waves: (heard.append(waves), embed(self, waves))[1])
    together, wave = Predictor.load(SHIPPED / "ensemble"), music(4, 42.0, RATE)
    alone = {name: Predictor.load(SHIPPED / name) for name in together.scorer.members}
    times = windows(42.0)
    backbones = [run.encoder.encode.backbone for run in together.scorer.members.values()]
    hubert, adapted = (b for b in backbones if isinstance(b, Hubert))
    assert hubert.feature_extractor is adapted.feature_extractor
    assert hubert.encoder.layers[0].attention.q_proj is not adapted.encoder.layers[0].attention.q_proj

    def windowed(predictor: Predictor) -> dict[str, list[Scored]]:
        ear = predictor.windows()
        ear.push(wave)
        ear.finish()
        with torch.inference_mode():
            features = {
                name: found for listener in ear._listeners for name, found in listener.features(times).items()
            }
        return {name: run.score_each(features[name]) for name, run in predictor.scorer.members.items()}

    found = windowed(together)
    whole = together.scorer.hear(wave)
    assert sum(map(len, heard)) == 2 * len(chunk_starts(len(wave), ChunkSpec())), (
        "every chunk once for the windows, once for the track"
    )
    expected = {name: windowed(predictor)[""] for name, predictor in alone.items()}
    for name, scored in found.items():
        for ours, theirs in zip(scored, expected[name], strict=True):
            assert np.abs(ours.scores - theirs.scores).max() <= 1e-6
    joined = together.scorer.join({name: predictor.scorer.hear(wave) for name, predictor in alone.items()})
    assert np.abs(whole.scores - joined.scores).max() <= 1e-6


def test_only_equal_frozen_front_ends_are_shared() -> None:
    def hubert(normalise: Literal["yes", "no"] = "yes") -> Hubert:
        found = load_backbone("embedded", normalise=normalise)
        assert isinstance(found, Hubert)
        return found

    first, other, trained, learning = hubert(), hubert("no"), hubert(), hubert()
    with torch.no_grad():
        trained.feature_projection.projection.bias[0] += 1e-6
    learning.train()
    share_front_ends([first, other, trained, learning, load_backbone("spectral")])
    assert first._shared is other._shared is trained._shared is learning._shared is None
    equal = hubert()
    share_front_ends([first, equal])
    waves = [torch.randn(1, 8000, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    states = [[], []]  # type: ignore[var-annotated]
    for wave in (*waves, waves[0]):
        for found, backbone in zip(states, (first, equal), strict=True):
            backbone(wave, lambda layer, x, found=found: found.append(x), last=1)
    assert torch.equal(torch.stack(states[0]), torch.stack(states[1]))
    assert torch.equal(states[0][0], states[0][2])
    assert not torch.equal(states[0][0], states[0][1])
    shared = first._shared
    assert shared is not None
    assert shared._result is not None
    del wave, waves
    assert shared._result is None, "nothing is held that nobody will ask for"


def test_spectra_of_several_members_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backbones = [load_backbone("spectral").eval() for _ in range(2)]
    alone = load_backbone("spectral").eval()
    share_front_ends(backbones)
    calls = []
    make = SpectralBackbone._spectra
    monkeypatch.setattr(
        SpectralBackbone, "_spectra", lambda self, waves: calls.append(1) or make(self, waves)
    )
    for wave in torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0)):
        states: list[Tensor] = []
        for backbone in (*backbones, alone):
            backbone(wave, lambda layer, x, states=states: states.append(x))
        assert torch.equal(states[0], states[2])
        assert torch.equal(states[1], states[2])
    assert len(calls) == 4, "once for two of them and once for the other, of each wave"


def test_runs_that_read_the_same_features_encode_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {name: RunScorer(SHIPPED / "spectral-lag", CPU) for name in "ab"}
    runs |= {name: RunScorer(SHIPPED / "embedded-lora", CPU) for name in "cd"}
    wave = music(6, 12.0, RATE)
    expected = {name: run.hear(wave) for name, run in runs.items() if name in "ac"}
    share_encoders(list(runs.values()))
    assert runs["a"].encoder is runs["b"].encoder
    assert runs["c"].encoder is not runs["d"].encoder, "each has adapted its backbone"
    calls: list[Encoder] = []
    encode = Encoder.forward
    monkeypatch.setattr(
        Encoder,
        "forward",
        lambda self, waves, arrangement: (calls.append(self), encode(self, waves, arrangement))[1],
    )
    groups = listening_together({name: run.encoder.encode for name, run in runs.items()})
    ears = [TrackListener(group, len(wave), CPU) for group in groups]
    with torch.inference_mode():
        for ear in ears:
            ear.push(wave)
        found = {name: features for ear in ears for name, features in ear.finish().items()}
    assert len(calls) == 3, "once for a and b, which know nothing of their own below the head"
    for name, run in runs.items():
        theirs = expected["a" if name in "ab" else "c"].scores
        np.testing.assert_allclose(run.score(found[name]).scores, theirs, atol=1e-6)
    sliding = WindowListener({name: runs[name].encoder.encode for name in "ab"}, CPU)
    with torch.inference_mode():
        sliding.push(wave)
        sliding.finish()
        rows = sliding.features(np.array([[0.0, 12.0]]))
    assert rows["a"] is rows["b"]


def test_encoders_that_join_other_chunks_do_not_listen_together() -> None:
    encoders = {"a": encoder("spectral"), "b": encoder("spectral", window=3), "c": encoder("embedded")}
    assert [set(group) for group in listening_together(encoders)] == [{"a", "c"}, {"b"}]


@pytest.mark.parametrize("name", ["spectral", "embedded"])
def test_windows_of_whole_chunks_have_the_features_of_those_chunks(name: str) -> None:
    ours = encoder(name)
    wave = music(5, 27.0, RATE)  # the last chunk overlaps the one before
    layout = Layout.of(len(wave), ours.spec)
    listener = WindowListener({"a": ours}, CPU)
    with torch.inference_mode():
        for block in blocks(wave, 2):
            listener.push(block)
        listener.finish()
        for first, last in ((0, 2), (1, 4), (4, 6), (0, 6)):
            times = np.array([[5.0 * first, min(5.0 * last, listener.covered)]])
            found = listener.features(times)["a"]
            chunks = torch.from_numpy(
                np.stack([wave[s : s + layout.length] for s in layout.starts[first:last]])
            )
            window = layout.window(first, last)
            rows = ours(chunks, Arrangement.of_window(layout, window))
            torch.testing.assert_close(found["lag"][0], rows["lag"][0], rtol=1e-4, atol=1e-4)
            if (
                last < 6
            ):  # where chunks overlap, windows count frames once, and rows of chunks count them twice
                whole = pooling_of(ours.spec["stats"]).aggregate(
                    rows["stats"], torch.full((last - first,), layout.frames)
                )
                torch.testing.assert_close(found["stats"][0], whole, rtol=1e-4, atol=1e-4)


def test_joins_of_chunks_are_no_rhythm_wherever_a_window_begins() -> None:
    """States that change only at joins: the channels of rises must not see it."""
    pooling = LagPooling(SpectralChannels(64, 84, 375, 1, 6), 75.0)
    levels = torch.randn(8, 1, 148, generator=torch.Generator().manual_seed(0))
    states = levels.expand(8, 375, 148).reshape(1, -1, 148)
    for first in (0, 100, 187, 188, 374, 562):
        r = pooling(states[:, first : first + 1500], first % 375)
        assert r[0, :7].abs().max() < 1e-3, first
    assert pooling(states[:, 187 : 187 + 1500])[0, :7].abs().max() > 0.1, "else this test sees nothing"


class Counted(torch.nn.Module):
    """A backbone that counts the chunks it encodes."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.chunks = backbone, 0

    def forward(self, waves: Tensor, *rest: object, **more: object) -> None:
        self.chunks += len(waves)
        self.backbone(waves, *rest, **more)


@pytest.fixture
def counted() -> tuple[Predictor, Counted]:
    predictor = Predictor.load(SHIPPED / "spectral-lag")
    assert isinstance(predictor.scorer, RunScorer)
    counter = Counted(predictor.scorer.encoder.encode.backbone)
    predictor.scorer.encoder.encode.backbone = counter  # type: ignore[assignment]
    return predictor, counter


@pytest.mark.parametrize("seconds", [3.0, 12.0, 44.4, 56.2])
def test_a_timeline_encodes_every_chunk_once_and_hears_every_window(
    counted: tuple[Predictor, Counted], seconds: float, tmp_path: Path
) -> None:
    predictor, counter = counted
    soundfile.write(tmp_path / "song.wav", music(7, seconds, RATE), RATE)
    ticks: list[float] = []
    times, answers = predictor.hear(tmp_path / "song.wav", 10.0, 2.5, ticks.append)
    assert np.allclose(times, windows(seconds, 10.0, 2.5))
    assert len(answers) == len(times)
    assert counter.chunks == len(chunk_starts(round(seconds * RATE), ChunkSpec()))
    assert sum(ticks) == pytest.approx(seconds)
    everything = predictor.windows()  # nothing is forgotten
    everything.push(load(tmp_path / "song.wav"))
    everything.finish()
    assert (
        np.abs(
            np.stack([a.scores - b.scores for a, b in zip(answers, everything.answers(times), strict=True)])
        ).max()
        < 1e-5
    )
    with pytest.raises(EvaluationError, match="leave gaps"):
        predictor.hear(tmp_path / "song.wav", 2.0, 3.0)


def test_progress_of_predict_is_told_in_seconds(
    counted: tuple[Predictor, Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beatmeter.audio.ahead.LONG", 20.0)
    monkeypatch.setattr("beatmeter.audio.ahead.decode_or_count.__defaults__", (20.0,))
    predictor, _ = counted
    for n, seconds in enumerate((5.0, 65.0)):
        soundfile.write(tmp_path / f"{n}.wav", music(n, seconds, RATE), RATE)
    ticks: list[float] = []
    list(predictor.predict_files([tmp_path / "0.wav", tmp_path / "1.wav"], progress=ticks.append))
    assert ticks == pytest.approx([5.0, 30.0, 30.0, 5.0])


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_stream_of_a_predictor_encodes_every_chunk_once_whatever_the_blocks(
    counted: tuple[Predictor, Counted], rate: int
) -> None:
    predictor, counter = counted
    wave = music(8, 33.0, rate)
    found = []
    for seed in (0, 1):
        counter.chunks = 0
        stream, heard = MeterStream(predictor, rate, predictor.classes, late=np.inf), []
        for block in blocks(wave, seed):
            heard += stream.push(block)
            assert not heard or stream._seen / rate - heard[-1].time < 5.0 + 1.0 + 0.1, (
                "a chunk and a hop behind at most"
            )
        heard += stream.finish()
        assert [h.time for h in heard] == pytest.approx(np.arange(4.0, 34.0).tolist())
        assert stream.skipped == 0
        assert counter.chunks == 7
        found.append(np.stack([h.scores for h in heard]))
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_a_stream_whose_encoder_is_too_slow_leaves_out_chunks_and_goes_on(
    counted: tuple[Predictor, Counted],
) -> None:
    predictor, counter = counted
    now = [0.0]
    forward = counter.forward

    def slow(*arguments: object, **more: object) -> None:
        now[0] += 8.0  # for 5 s of audio
        forward(*arguments, **more)  # type: ignore[arg-type]

    counter.forward = slow  # type: ignore[method-assign, assignment]
    wave = music(9, 120.0, RATE)
    stream, heard = MeterStream(predictor, RATE, predictor.classes, clock=lambda: now[0]), []
    for second in range(120):
        now[0] = max(second + 1.0, now[0])
        for answer in stream.push(wave[second * RATE : (second + 1) * RATE]):
            heard.append(answer)
            assert now[0] - answer.time < 2.0 + 8.0 + 5.0 + 1.0
    assert 6 < counter.chunks < 18, "of 23"
    assert len(heard) >= counter.chunks - 1, "every chunk that was encoded is answered for"
    assert stream.skipped > 20
    assert len(heard) + stream.skipped in range(110, 118)
