"""What every pooling keeps, whatever it computes: a new one joins by its line in `POOLINGS`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.audio.chunking import Layout, row_count, rows
from beatmeter.errors import ConfigError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.crops import VIEWS, crop_of
from beatmeter.features.pooling import Encoder, feature_spec, window_chunks
from beatmeter.features.poolings import POOLINGS, Arrangement, pooling_of
from beatmeter.features.tracks import Excerpt, TrackEncoder
from beatmeter.schema import Features, FeatureSpec, Pooled
from beatmeter.settings import FeatureConfig, HeadConfig
from beatmeter.store import Store
from beatmeter.tasks.heads import Head

RATE = 24_000
SECONDS = (1.3, 5.0, 5.004, 9.2, 16.0, 31.7)


def wave_of(seconds: float) -> np.ndarray:
    """Decaying tones at a pulse that grows slower, in a little noise."""
    rng = np.random.default_rng(round(seconds * 10))
    t = np.arange(round(seconds * RATE)) / RATE
    wave: np.ndarray = 0.3 * np.sin(2 * np.pi * 330 * t) * np.exp(
        -6 * (t % (0.3 + 0.02 * t))
    ) + 0.02 * rng.standard_normal(len(t))
    return wave.astype(np.float32)


@pytest.mark.parametrize("backbone", ["spectral", "embedded"])
@pytest.mark.parametrize("kind", POOLINGS)
class TestPoolingContract:
    def made(self, kind: str, backbone: str) -> Encoder:
        model = load_backbone(backbone)
        return Encoder(
            model,
            feature_spec(model, FeatureConfig(backbone=backbone, poolings=(kind,), window=2), "float32"),
        ).eval()

    def rows_of(self, encoder: Encoder, wave: np.ndarray) -> torch.Tensor:
        layout = Layout.of(len(wave), encoder.spec)
        chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts]))
        with torch.inference_mode():
            return encoder(chunks, Arrangement.of(layout, window_chunks(encoder.spec)))[
                encoder.spec.poolings[0].name
            ]

    def test_its_spec_comes_back_from_json_and_is_of_its_kind(self, kind: str, backbone: str) -> None:
        spec = self.made(kind, backbone).spec
        assert FeatureSpec.from_json(spec.to_json()) == spec
        assert type(pooling_of(spec.poolings[0])) is POOLINGS[kind]
        assert POOLINGS[kind].kind == spec.poolings[0].kind == kind

    @pytest.mark.parametrize("seconds", SECONDS)
    def test_rows_match_their_times_and_shapes(self, kind: str, backbone: str, seconds: float) -> None:
        encoder = self.made(kind, backbone)
        spec, pooling = encoder.spec.poolings[0], pooling_of(encoder.spec.poolings[0])
        layout = Layout.of(round(seconds * RATE), encoder.spec)
        times, frames = pooling.rows(layout)
        found = self.rows_of(encoder, wave_of(seconds))
        assert found.shape == (len(times), *spec.row_shape)
        assert found.dtype == torch.float32
        assert bool(torch.isfinite(found).all())
        assert (
            len(frames)
            == row_count(layout, spec)
            == pooling.count(Arrangement.of(layout, window_chunks(encoder.spec)), layout.frames)
        )
        assert times[0, 0] == 0
        assert (times[:, 0] < times[:, 1]).all()
        assert times[-1, 1] <= layout.samples / RATE + 1e-9
        assert (np.diff(times, axis=0) > 0).all(), "rows are in order"
        assert (times[1:, 0] <= times[:-1, 1] + 2 * encoder.spec.frame_span / RATE).all(), (
            "no music between two rows is left out"
        )
        assert (frames > 0).all()

    def test_the_same_audio_gives_the_same_rows(self, kind: str, backbone: str) -> None:
        wave = wave_of(9.2)
        assert torch.equal(
            self.rows_of(self.made(kind, backbone), wave), self.rows_of(self.made(kind, backbone), wave)
        )

    def test_parts_that_are_encoded_apart_join_to_the_whole(self, kind: str, backbone: str) -> None:
        encoder = self.made(kind, backbone)
        wave = wave_of(31.7)
        layout, parts = Layout.of(len(wave), encoder.spec), []
        for window in layout.windows(window_chunks(encoder.spec)):
            starts = layout.starts[slice(*window.chunks)]
            arrangement = Arrangement.of_window(layout, window)
            with torch.inference_mode():
                parts.append(
                    encoder(
                        torch.from_numpy(np.stack([wave[s : s + layout.length] for s in starts])), arrangement
                    )[encoder.spec.poolings[0].name]
                )
            assert len(parts[-1]) == pooling_of(encoder.spec.poolings[0]).count(arrangement, layout.frames)
        assert len(parts) > 1
        torch.testing.assert_close(torch.cat(parts), self.rows_of(encoder, wave), rtol=1e-4, atol=1e-4)

    def test_a_crop_is_the_rows_that_it_keeps(self, kind: str, backbone: str) -> None:
        """Rows outside of a crop have no part in its aggregate, and the whole is the crop that keeps all."""
        encoder = self.made(kind, backbone)
        pooling, wave = pooling_of(encoder.spec.poolings[0]), wave_of(31.7)
        found, (times, frames) = self.rows_of(encoder, wave), pooling.rows(Layout.of(len(wave), encoder.spec))
        counts = torch.from_numpy(frames)
        assert pooling.crop(times, crop_of("a" * 64, 0, 31.7)) == (0, len(times))
        cut = set()
        for view in range(1, 1 + VIEWS):
            a, b = pooling.crop(times, crop_of("a" * 64, view, 31.7))
            other = found.clone()
            other[:a], other[b:] = 7.0, -7.0
            torch.testing.assert_close(
                pooling.aggregate(other[a:b], counts[a:b]), pooling.aggregate(found[a:b], counts[a:b])
            )
            cut.add((a, b))
        assert cut - {(0, len(times))}

    def test_one_row_is_its_own_aggregate_and_equal_rows_are_theirs(self, kind: str, backbone: str) -> None:
        encoder = self.made(kind, backbone)
        pooling, row = pooling_of(encoder.spec.poolings[0]), self.rows_of(encoder, wave_of(9.2))[:1]
        torch.testing.assert_close(pooling.aggregate(row, torch.tensor([375])), row[0])
        torch.testing.assert_close(
            pooling.aggregate(row.expand(3, *row.shape[1:]), torch.tensor([1, 2, 3])),
            row[0],
            rtol=1e-4,
            atol=1e-5,
        )

    def test_a_head_reads_it(self, kind: str, backbone: str) -> None:
        """Tracks of several lengths in one batch."""
        encoder = self.made(kind, backbone)
        tracks = TrackEncoder(encoder.backbone, encoder.spec, torch.device("cpu"))
        with torch.inference_mode():
            features = tracks([Excerpt(wave_of(seconds)) for seconds in (9.2, 5.0)])
        head = Head(encoder.spec, HeadConfig(poolings=(kind,), channels=8, hidden=8, dilations=(1, 2)), 3)
        with torch.inference_mode():
            outputs = head.eval()(features)
        assert outputs.shape == (2, 3)
        assert bool(torch.isfinite(outputs).all())

    def test_a_store_gives_back_rows_times_and_frames(self, kind: str, backbone: str, tmp_path: Path) -> None:
        encoder = self.made(kind, backbone)
        spec, wave = encoder.spec.poolings[0], wave_of(9.2)
        values = self.rows_of(encoder, wave).numpy().astype(np.float16)
        times, frames = rows(Layout.of(len(wave), encoder.spec), spec)
        store = Store.for_spec(str(tmp_path), encoder.spec)
        store.commit(
            [("a" * 64, Features(encoder.spec, len(wave), {spec.name: Pooled(values, times, frames)}))]
        )
        kept = store.snapshot().read("a" * 64).pooled[spec.name]
        assert np.array_equal(kept.values, values)
        assert np.array_equal(kept.times, times)
        assert np.array_equal(kept.frames, frames)


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_words_of_the_settings_are_the_registry(kind: str) -> None:
    assert FeatureConfig(poolings=(kind,)).poolings == (kind,)


def test_several_poolings_of_a_kind_stand_in_one_spec_with_layers_and_rates_of_their_own() -> None:
    backbone = load_backbone("embedded")
    config = FeatureConfig(
        backbone="embedded",
        poolings=("stats", "low=stats:1", "frames", "beats=frames:2+4@25", "form=frames:1-3@1"),
        layers="1-4",
    )
    spec = feature_spec(backbone, config, "float32")
    assert {p.name: p.layers for p in spec.poolings} == {
        "stats": (1, 2, 3, 4),
        "low": (1,),
        "frames": (1, 2, 3, 4),
        "beats": (2, 4),
        "form": (1, 2, 3),
    }
    assert {p.name: p.parameters["step"] for p in spec.poolings if p.kind == "frames"} == {
        "frames": 15,
        "beats": 3,
        "form": 75,
    }
    wave = wave_of(9.2)
    layout = Layout.of(len(wave), spec)
    chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts]))
    with torch.inference_mode():
        found = Encoder(backbone, spec).eval()(chunks, Arrangement.of(layout, 1))
    assert torch.equal(found["low"][:, 0], found["stats"][:, 0])
    beats, form = found["beats"][:125, 0], found["form"][:5, 1]
    torch.testing.assert_close(beats.reshape(5, 25, -1).mean(dim=1), form, rtol=1e-4, atol=1e-5)


def test_poolings_under_their_own_names_do_not_move_the_fingerprint_of_plain_ones() -> None:
    backbone = load_backbone("spectral")
    both = feature_spec(
        backbone, FeatureConfig(backbone="spectral", poolings=("stats", "lag", "beats=frames@25")), "float32"
    )
    plain = feature_spec(backbone, FeatureConfig(backbone="spectral"), "float32")
    assert both.only(("stats", "lag")).fingerprint == plain.fingerprint
    assert both.covers(plain)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("leg", "Choose from: stats, lag, rhythm, frames, harmony, chroma, mel"),
        ("beats=leg", "Choose from: stats, lag, rhythm, frames, harmony, chroma, mel"),
        ("beats=stats@25", "Only frames, chroma, mel have a rate"),
        ("beats=frames@0", "cannot have 0 Hz"),
        ("beats=frames@1.2.3", "is not a rate"),
        ("a.b=frames", "is not possible"),
        ("stats=frames", "each once"),
    ],
)
def test_a_pooling_that_cannot_be_read_is_refused_in_one_line(pooling: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        FeatureConfig(poolings=("stats", pooling))


@pytest.mark.parametrize(
    ("pooling", "message"),
    [("beats=frames@7", "'beats'"), ("beats=frames:9-30", "outside"), ("train=frames", "'train'")],
)
def test_what_a_backbone_cannot_give_is_refused(pooling: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        feature_spec(
            load_backbone("spectral"), FeatureConfig(backbone="spectral", poolings=(pooling,)), "float32"
        )


def test_mel_keeps_the_level_that_a_backbone_normalises_away() -> None:
    """And its rises see an onset, whatever the backbone."""
    model = load_backbone("embedded")
    config = FeatureConfig(backbone="embedded", poolings=("mel@25", "frames:2@25"))
    encoder = Encoder(model, feature_spec(model, config, "float32")).eval()
    wave = torch.from_numpy(wave_of(5.0))[None]
    wave[:, : 2 * RATE] *= 0.001
    layout = Layout.of(wave.shape[1], encoder.spec)
    arrangement = Arrangement.of(layout, 1)
    with torch.inference_mode():
        loud, soft = encoder(wave, arrangement), encoder(wave / 4, arrangement)
    level, rise = loud["mel"][:, 0].split(64, dim=1)
    fall = level - soft["mel"][:, 0, :64]
    assert float((fall[2 * 25 + 2 :] - np.log(4)).abs().max()) < 0.01
    # the music sets in between the rows 49 and 50, and a window of 43 ms sees 21 ms of it before that
    assert int(rise.mean(dim=1).argmax()) == 2 * 25 - 1
    assert float((loud["frames"] - soft["frames"]).abs().max()) < 1e-3
