"""Tasks on frames: the loss forgives what it should, rows get the right targets, and bars are found from
curves of every meter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from beatmeter.datasets.annotations import Annotation, Grid
from beatmeter.errors import ConfigError
from beatmeter.evaluation.metrics.beats import any_octave, continuity, f_measure
from beatmeter.evaluation.metrics.families import metrics_of, null_systems
from beatmeter.evaluation.report import assess
from beatmeter.features.poolings.sequences import pad
from beatmeter.runtime.config import change
from beatmeter.schema import ChunkSpec, FeatureSpec, MarkList, Marks, PoolingSpec
from beatmeter.settings import HeadConfig, RunConfig
from beatmeter.tasks.structure.beats import BeatsTask
from beatmeter.tasks.structure.decoding import PointerSettings, find_bars, peaks
from beatmeter.tasks.structure.head import FrameHead
from beatmeter.tasks.structure.losses import added, dilated, shift_tolerant

RATE = 25.0
ONE = torch.ones(1)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, :, None]


def loss_of(at: Sequence[int], high: Sequence[int], n: int = 21) -> float:
    """The tolerant loss of logits that are high in some rows and low elsewhere, for marks in the rows
    `at`."""
    targets, logits = torch.zeros(1, n, 1), torch.full((1, n, 1), -8.0)
    targets[:, list(at)], logits[:, list(high)] = 1.0, 8.0
    each = shift_tolerant(logits, targets, torch.ones(1, n, 1, dtype=torch.bool), ONE, 1)
    total, count = added(*each)
    return float(total / count)


def test_a_peak_beside_its_mark_is_forgiven_and_one_further_away_is_not() -> None:
    assert loss_of([10], [10]) == pytest.approx(loss_of([10], [9])) == pytest.approx(loss_of([10], [11]))
    assert loss_of([10], [10]) < 0.01
    assert loss_of([10], [13]) > 0.5
    assert loss_of([10], []) > 0.3, "a mark that no peak is near costs"
    assert loss_of([], [10]) > 0.3, "a peak without a mark too"


def test_what_is_not_known_counts_for_nothing_and_lends_nothing() -> None:
    targets, logits = torch.zeros(1, 12, 1), torch.full((1, 12, 1), -8.0)
    mask = torch.ones(1, 12, 1, dtype=torch.bool)
    mask[:, 6:] = False
    quiet = added(*shift_tolerant(logits, targets, mask, ONE, 1))
    logits[:, 6:] = 8.0
    loud = added(*shift_tolerant(logits, targets, mask, ONE, 1))
    assert torch.equal(quiet[0], loud[0])
    assert int(loud[1]) == 6


def test_the_dilated_loss_wants_wide_peaks() -> None:
    targets, mask = column(0, 0, 0, 1, 0, 0, 0), torch.ones(1, 7, 1, dtype=torch.bool)
    sharp, wide = column(-8, -8, -8, 8, -8, -8, -8), column(-8, -8, 8, 8, 8, -8, -8)
    assert (
        float(dilated(wide, targets, mask, ONE, 1)[0].sum())
        < 0.01
        < float(dilated(sharp, targets, mask, ONE, 1)[0].sum())
    )


def task() -> BeatsTask:
    return BeatsTask(change(RunConfig(), {"task": {"name": "beats"}}))


def annotation(times: np.ndarray, places: np.ndarray, known: tuple[float, float]) -> Annotation:
    return Annotation("a", grid=Grid(times, places, known=np.array([known])))


def test_rows_get_the_beats_nearest_to_them_inside_what_is_known() -> None:
    beats = task()
    truth = beats.marks_of(annotation(np.array([0.5, 1.01, 1.5]), np.array([1, 2, 1]), (0.3, 1.6)))
    times = 0.02 + np.arange(60) / RATE
    values, mask = beats.rows(truth, times)
    assert [round(t, 2) for t in times[values[:, 0] == 1]] == [0.5, 1.02, 1.5]
    assert [round(t, 2) for t in times[values[:, 1] == 1]] == [0.5, 1.5]
    assert times[mask[:, 0]].min() >= 0.3
    assert times[mask[:, 0]].max() <= 1.6
    crop, _ = beats.rows(truth, times[20:30])
    assert int(crop[:, 0].sum()) == 1, "a mark outside the rows makes no target at their edge"


def test_beats_without_places_teach_beats_alone() -> None:
    beats = task()
    truth = beats.marks_of(annotation(np.array([0.5, 1.0, 1.5]), np.zeros(3, int), (0.3, 1.6)))
    _, mask = beats.rows(truth, 0.02 + np.arange(60) / RATE)
    assert mask[:, 0].any()
    assert not mask[:, 1].any()


def spec(rate: float = 25.0) -> FeatureSpec:
    def pooling(name: str, kind: str, layers: tuple[int, ...], dim: int) -> PoolingSpec:
        settings = {"step": round(75 / rate), "version": 1}
        return PoolingSpec(name, kind, "frame", layers, ("dim",), (dim,), settings)

    poolings = (pooling("beats", "frames", (1, 2), 6), pooling("mel", "mel", (1,), 4))
    return FeatureSpec("x", "1", "w", 2, 6, 320, 400, True, ChunkSpec(), poolings)


@pytest.mark.parametrize("over_time", ["tcn", "transformer"])
def test_what_a_row_gives_does_not_depend_on_the_padding(over_time: str) -> None:
    config = HeadConfig(
        poolings=("beats", "mel"), channels=8, dilations=(1, 2), over_time=over_time, attention_layers=1
    )  # type: ignore[arg-type]
    torch.manual_seed(0)
    head = FrameHead(spec(), config, 2, 25.0).eval()
    rows = {
        "beats": [torch.randn(9, 2, 6), torch.randn(30, 2, 6)],
        "mel": [torch.randn(9, 1, 4), torch.randn(30, 1, 4)],
    }
    times = [torch.zeros(9, 2), torch.zeros(30, 2)]

    def features(which: list[int]) -> dict[str, torch.Tensor]:
        parts = [pad(name, [rows[name][i] for i in which], [times[i] for i in which]) for name in rows]
        return parts[0] | parts[1]

    with torch.inference_mode():
        both, alone = head(features([0, 1])), head(features([0]))
    assert both.shape == (2, 30, 2)
    torch.testing.assert_close(both[0, :9], alone[0], atol=1e-5, rtol=1e-4)


def test_a_pooling_of_another_rate_or_without_time_is_refused_with_what_to_write() -> None:
    config = HeadConfig(poolings=("beats",))
    with pytest.raises(ConfigError, match="works at 25 Hz, and the pooling 'beats' has 5 Hz"):
        FrameHead(spec(5.0), config, 2, 25.0)
    with pytest.raises(ConfigError, match="the head reads lag"):
        FrameHead(spec(), HeadConfig(poolings=("lag",)), 2, 25.0)


def curves(beats: np.ndarray, places: np.ndarray, seconds: float = 30.0) -> np.ndarray:
    """Curves with a bump at every beat, as a good model makes them, in some noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    found = np.full((len(t), 2), 0.05) + 0.03 * np.random.default_rng(0).random((len(t), 2))
    for at, place in zip(beats, places, strict=True):
        bump = 0.85 * np.exp(-0.5 * ((t - at) / 0.03) ** 2)
        found[:, 0] = np.maximum(found[:, 0], bump)
        if place == 1:
            found[:, 1] = np.maximum(found[:, 1], bump)
    return found


@pytest.mark.parametrize(
    ("meter", "pulses", "pulse"),
    [
        ("4", (1, 1, 1, 1), 0.5),
        ("3", (1, 1, 1), 0.34),
        ("7", (2, 2, 3), 0.17),
        ("11", (2, 2, 3, 2, 2), 0.2),
        ("4", (1,) * 4, 1.0),
    ],
)
def test_bars_of_every_meter_are_found_while_the_tempo_drifts(
    meter: str, pulses: tuple[int, ...], pulse: float
) -> None:
    steps = np.tile(np.array(pulses) * pulse, 60)
    times = np.concatenate([[0.37], 0.37 + np.cumsum(steps)])
    times = times * (1 + 0.001 * times)
    places = np.tile(np.arange(len(pulses)), 61)[: len(times)] + 1
    times, places = times[times < 29.9], places[times < 29.9]
    found = find_bars(curves(times, places), RATE)
    assert found.meter == meter
    assert f_measure(times, found.times) > 0.95
    assert f_measure(times[places == 1], found.times[found.places == 1]) > 0.95
    near = np.abs(found.times[:, None] - times).min(axis=1)
    assert np.median(near) < 0.01, "between the rows"


def test_a_bar_without_curves_for_it_follows_the_prior() -> None:
    times = np.arange(0.4, 29.9, 0.5)
    flat = curves(times, np.zeros(len(times)))
    for meter, beats in (("3", 3), ("5", 5)):
        found = find_bars(flat, RATE, prior={meter: 1.0})
        assert found.meter == meter
        assert found.places.max() in (beats, 2)


def test_where_pulses_between_beats_are_as_strong_the_length_of_a_beat_decides() -> None:
    times = np.arange(0.4, 29.9, 0.375)
    both = curves(times, np.where(np.arange(len(times)) % 8, 2, 1))
    for pace, length in ((0.0, 0.375), (20.0, 0.75)):
        found = find_bars(both, RATE, settings=PointerSettings(pace=pace, moderate=(0.7, 0.3), slower=()))
        assert np.median(np.diff(found.times)) == pytest.approx(length, abs=0.02)


def test_beats_and_bars_of_which_every_second_one_is_weak_last_twice_as_long() -> None:
    times = np.arange(0.4, 29.9, 0.43)
    count = np.arange(len(times))
    alike = curves(times, np.where(count % 4, 2, 1))
    uneven = alike.copy()
    weak = np.array([round(t * RATE) for t in times[count % 2 == 1]])
    bars = np.array([round(t * RATE) for t in times[count % 8 == 4]])
    for column, rows, part in ((0, weak, 0.4), (1, bars, 0.35)):
        for row in (rows - 1, rows, rows + 1):
            uneven[row, column] *= part
    usual, fast, short = PointerSettings(), PointerSettings(slower=()), PointerSettings(pairs=None)
    for both, settings, beat, bar in (
        (alike, usual, 0.43, 1.72),
        (uneven, usual, 0.86, 3.44),
        (uneven, short, 0.86, 1.72),
        (uneven, fast, 0.43, 1.72),
    ):
        found = find_bars(both, RATE, settings=settings)
        assert np.median(np.diff(found.times)) == pytest.approx(beat, abs=0.02)
        assert np.median(np.diff(found.times[found.places == 1])) == pytest.approx(bar, abs=0.05)
    strong = times[count % 8 == 0]
    found = find_bars(uneven, RATE)
    assert found.times[found.places == 1][:3] == pytest.approx(strong[:3], abs=0.02)


def test_narrow_peaks_between_rows_are_no_weaker() -> None:
    """Beats of 12.5 rows, 120 a minute: every second one, and every second downbeat, lies between two."""
    halves = np.arange(10, 1175, 25)  # half rows
    found = np.full((600, 2), 0.01)
    found[halves // 2, 0] = found[(halves + 1) // 2, 0] = found[halves[::3] // 2, 1] = 0.95
    beats = find_bars(found, RATE)
    assert np.median(np.diff(beats.times)) == pytest.approx(0.5, abs=0.01)
    assert np.median(np.diff(beats.times[beats.places == 1])) == pytest.approx(1.5, abs=0.01)


def test_a_bar_that_is_missing_shifts_which_downbeats_are_the_strong_ones() -> None:
    from beatmeter.tasks.structure.decoding.octave import _strong_ones

    strong = np.array([1.0, 4, 1, 4, 1, 4, 4, 1, 4, 1, 4, 1])
    assert _strong_ones(strong, 2.0).tolist() == [1, 3, 5, 6, 8, 10]
    assert _strong_ones(strong, 99.0).tolist() in ([1, 3, 5, 7, 9, 11], [0, 2, 4, 6, 8, 10])


def test_silence_has_no_beats_and_short_curves_do_no_harm() -> None:
    assert len(find_bars(np.zeros((500, 2)), RATE).times) == 0
    assert len(find_bars(np.zeros((1, 2)), RATE).times) == 0
    assert len(peaks(np.zeros(2))) == 0
    found = find_bars(curves(np.array([0.3]), np.array([1]), 1.0), RATE, start=10.0)
    assert ((found.times >= 10.0) & (found.times <= 11.0)).all()


def test_peaks_lie_between_rows_and_apart() -> None:
    t = np.arange(100) / RATE
    curve = np.exp(-0.5 * ((t - 2.013) / 0.05) ** 2) + 0.8 * np.exp(-0.5 * ((t - 3.0) / 0.05) ** 2)
    found = peaks(curve) / RATE
    assert found == pytest.approx([2.013, 3.0], abs=0.004)


def marks(said: Sequence[np.ndarray], truth: np.ndarray) -> Marks:
    def listed(times: np.ndarray) -> MarkList:
        return MarkList.moments("beat", times, [str(i % 4 + 1) for i in range(len(times))])

    n = len(said)
    return Marks(
        ids=tuple(f"t{i}" for i in range(n)),
        groups=tuple(f"t{i}" for i in range(n)),
        sources=("",) * n,
        split="test",
        times=np.full((n, 2), np.nan),
        marks=tuple(map(listed, said)),
        truth=(listed(truth),) * n,
    )


def test_beats_are_judged_one_value_a_track_beside_systems_that_heard_nothing() -> None:
    truth = np.arange(0.3, 30, 0.6)
    record = marks([truth, truth + 0.02, truth[::2], truth + 0.3, np.zeros(0)], truth)
    values = {m.name: m.per_item(record) for m in metrics_of(record) if m.per_item is not None}
    assert values["beat_f"].round(2).tolist() == [1.0, 1.0, 0.67, 0.0, 0.0]
    assert values["beat_f_any_octave"].round(2).tolist()[2] == pytest.approx(1.0, abs=0.03)
    assert values["downbeat_f"][:2].tolist() == [1.0, 1.0]
    nulls = null_systems(record, None)
    assert set(nulls) == {"shuffled", "steady"}
    assessment = assess(record)
    assert assessment.rows[0].metric.name == "beat_f"
    assert assessment.to_json()["record"] == "marks"


def test_the_first_seconds_are_left_out_of_both_sides() -> None:
    truth = np.arange(0.0, 20, 0.5)
    assert f_measure(truth, truth[truth >= 5]) == 1.0
    assert f_measure(truth, np.concatenate([[0.1, 0.2, 0.3], truth])) == 1.0
    assert np.isnan(f_measure(truth[:5], truth))
    assert any_octave(truth, np.zeros(0)) == 0.0
    assert continuity(truth, truth) == 1.0


def test_a_long_track_is_decoded_in_parts_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    from beatmeter.tasks.structure.decoding import bars

    times = np.arange(0.4, 59.9, 0.5)
    places = np.arange(len(times)) % 4 + 1
    found = curves(times, places, 60.0)
    whole = find_bars(found, RATE)
    monkeypatch.setattr(bars, "LONG", 25.0)
    monkeypatch.setattr(bars, "SHARED", 8.0)
    parts = find_bars(found, RATE)
    assert np.allclose(parts.times, whole.times)
    assert np.array_equal(parts.places, whole.places)
    assert parts.meter == whole.meter == "4"
