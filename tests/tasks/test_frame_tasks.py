"""Tasks on frames beside beats: what rows should give, how curves become moments, spans and levels, several
tasks on one encoder, and losses that doubt wrong marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from beatmeter.datasets.annotations import Annotation, Events, Grid, Spans
from beatmeter.errors import ConfigError
from beatmeter.evaluation.metrics.events import moment_f, right_share
from beatmeter.evaluation.metrics.families import metrics_of
from beatmeter.evaluation.report import assess
from beatmeter.runtime.config import change
from beatmeter.schema import Curves, MarkList, Marks, Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import open_task
from beatmeter.tasks.structure.decoding.path import steadiest
from beatmeter.tasks.structure.frames import FrameTask
from beatmeter.tasks.structure.losses import shift_tolerant, trusted
from beatmeter.tasks.structure.several import StructureTask

RATE = 5.0
WHOLE = np.array([[0.0, 60.0]])


def task(name: str, **values: Any) -> FrameTask:
    found = open_task(change(RunConfig(), {"task": {"name": name, **values}}))
    assert isinstance(found, FrameTask)
    return found


def song() -> Annotation:
    beats = np.arange(0.0, 60.0, 0.5)
    return Annotation(
        "a",
        60.0,
        Grid(beats, np.arange(len(beats)) % 4 + 1, known=WHOLE),
        Spans([0, 16, 32], [16, 32, 60], ("A", "B", "A"), ("verse", "drop", ""), known=WHOLE),
        Events([10.0, 16.0], ("build-up", "drop"), lengths=[6.0, 0.0], known=WHOLE),
    )


def heard(of: FrameTask, values: np.ndarray, truth: MarkList, n: int = 1) -> Curves:
    return Curves(
        ids=tuple(f"t{i}" for i in range(n)),
        groups=tuple(f"t{i}" for i in range(n)),
        sources=("",) * n,
        split="val",
        times=np.full((n, 2), np.nan),
        names=of.output.names,
        rate=of.output.rate or 1.0,
        starts=np.full(n, 0.1),
        values=(values,) * n,
        truth=(truth,) * n,
    )


def bumps(of: FrameTask, at: list[list[float]], height: float) -> np.ndarray:
    t = 0.1 + np.arange(300) / RATE
    found = np.full((len(t), len(at)), 0.02)
    for k, times in enumerate(at):
        for time in times:
            found[:, k] = np.maximum(found[:, k], height * np.exp(-0.5 * ((t - time) / 0.2) ** 2))
    return found


def test_boundaries_are_learned_where_sections_meet_and_answered_as_sections() -> None:
    boundaries = task("boundaries")
    truth = boundaries.marks_of(song())
    times = 0.1 + np.arange(300) / RATE
    values, mask = boundaries.rows(truth, times)
    assert times[values[:, 0] == 1] == pytest.approx([16.0, 32.0], abs=0.11)
    assert mask.all()
    curves = heard(boundaries, bumps(boundaries, [[16.1, 32.2, 50.0]], 0.4), truth)
    low = np.array(curves.values[0])
    low[240:260] *= 0.3  # the false peak is a lower one
    answers = boundaries.answers(heard(boundaries, low, truth), heard(boundaries, low, truth))
    assert isinstance(answers, Marks)
    assert answers.marks[0].of("section").starts == pytest.approx([0.0, 16.1, 32.2], abs=0.05)
    rows = {row.metric.name: row.estimate.value for row in assess(answers).rows}
    assert rows["hr5"] == 1.0
    assert boundaries.figures(curves)["f"] < 1.0


def test_drops_and_build_ups_are_judged_within_one_beat_beside_null_systems() -> None:
    events = task("events")
    truth = events.marks_of(song())
    values, _ = events.rows(truth, 0.1 + np.arange(300) / RATE)
    assert values.sum(axis=0).tolist() == [1.0, 1.0]
    answers = events.answers(heard(events, bumps(events, [[16.4], [10.8]], 0.9), truth, 3))
    assessment = assess(answers)
    rows = {row.metric.name: row for row in assessment.rows}
    assert set(rows) == {"drop_f", "build_up_f"}
    assert rows["drop_f"].estimate.value == 1.0, "0.4 s is within a beat of 0.5 s"
    assert rows["build_up_f"].estimate.value == 0.0, "0.8 s is not"
    assert {"shuffled", "steady"} <= set(rows["drop_f"].nulls)
    up = answers.marks[0].of("build-up")
    assert (up.starts[0], up.ends[0]) == pytest.approx((10.8, 16.4), abs=0.05)


def test_moments_match_one_to_one() -> None:
    assert moment_f(np.array([1.0, 2.0]), np.array([1.1, 1.2]), 0.5) == 0.5
    assert moment_f(np.zeros(0), np.array([1.0]), 0.5) == 0.0
    assert np.isnan(moment_f(np.zeros(0), np.zeros(0), 0.5))


def test_functions_are_learned_where_they_are_named_and_follow_a_steady_path() -> None:
    functions = task("functions", classes=("verse", "drop"))
    truth = functions.marks_of(song())
    times = 0.1 + np.arange(300) / RATE
    values, mask = functions.rows(truth, times)
    assert values[times < 16].tolist() == [[1.0, 0.0]] * int((times < 16).sum())
    assert not mask[times > 32].any(), "nobody says what the last section is for"
    noisy = 0.5 + 0.45 * (2 * values - 1)
    noisy[20], noisy[120] = noisy[20][::-1], noisy[120][::-1]  # single rows that are wrong
    answers = functions.answers(heard(functions, noisy, truth))
    spans = answers.marks[0].of("function")
    assert spans.names[:2] == ("verse", "drop")
    assert spans.starts[1] == pytest.approx(16.0, abs=0.11)
    assert {m.name for m in metrics_of(answers)} == {"function_share"}
    assert right_share("function", truth, answers.marks[0]) > 0.98
    assert right_share("function", truth, MarkList()) == 0.0


def test_the_steadiest_path_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for price in (0.0, 0.7, 3.0):
        scores = rng.normal(0, 1, (6, 3))
        every = np.stack(np.meshgrid(*[range(3)] * 6), axis=-1).reshape(-1, 6)
        worth = scores[np.arange(6), every].sum(axis=1) - price * (np.diff(every, axis=1) != 0).sum(axis=1)
        path = steadiest(scores, price)
        got = scores[np.arange(6), path].sum() - price * (np.diff(path) != 0).sum()
        assert got == pytest.approx(worth.max())


def test_parts_share_an_encoder_and_their_losses_add_by_weight() -> None:
    both = task("structure", parts=("boundaries", "events"), weights=(2.0, 0.5))
    assert isinstance(both, StructureTask)
    assert both.output.names == ("boundary", "drop", "build-up")
    assert both.output.rate == RATE
    assert task("structure").output.rate == 25.0
    assert "events drop" in task("structure").output.names, "a drop is an event and a function"
    truth = both.marks_of(song())
    values, mask = (torch.from_numpy(x)[None] for x in both.rows(truth, 0.1 + np.arange(300) / RATE))
    state = {name: {"weight": [1.0] * len(p.output.names), "share": []} for name, p in both.parts.items()}
    outputs = torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(0))
    total, count = both.loss(outputs, values, mask, state)
    parts = [
        part.loss(outputs[..., at], values[..., at], mask[..., at], state[name])
        for (name, part), at in zip(both.parts.items(), both.columns, strict=True)
    ]
    assert float(total) == pytest.approx(float(2.0 * parts[0][0] + 0.5 * parts[1][0]), rel=1e-5)
    assert int(count) == int(parts[0][1] + parts[1][1])
    record = heard(both, bumps(both, [[16.0, 32.0], [16.0], [10.0]], 0.9), truth)
    answers = both.answers(record, record)
    assert set(answers.marks[0].kinds) == {"section", "boundary", "drop", "build-up"}
    assert both.figures(record)["score"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parts": ("beats", "beets")}, "'beets' is no part of structure"),
        ({"parts": ()}, "is not possible"),
        ({"weights": (1.0,)}, "1 weights for 4 parts"),
        ({"weights": (1.0, -1.0, 1.0, 1.0)}, "must not be negative"),
        ({"frame_smoothing": 0.6}, "must be in"),
        ({"doubted": 1.0}, "must be in"),
    ],
)
def test_parts_and_weights_that_are_none_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task("structure", **values)


def test_energy_is_what_the_signal_says_at_every_row(tmp_path: Path) -> None:
    from beatmeter.tasks.structure.energy import EnergyTask

    t = np.arange(20 * 24_000) / 24_000
    wave = np.where(t < 10, 0.02, 0.5) * np.sin(2 * np.pi * 60 * t)
    soundfile.write(tmp_path / "a.wav", wave, 24_000)
    energy = open_task(change(RunConfig(), {"task": {"name": "energy"}}))
    assert isinstance(energy, EnergyTask)
    levels = energy.levels(Track("a", tmp_path / "a.wav", split="train"), np.array([4.0, 16.0]))
    assert levels[0, 0] < 2 < 9 < levels[1, 0], "bass is loud after ten seconds"
    broken = Track("b", tmp_path / "b.wav", split="train")
    assert "cannot be measured" in str(energy.usable(broken))


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[None, :, None]


def test_the_marks_that_are_hardest_to_believe_are_left_out_of_every_track_alone() -> None:
    targets = column([1.0, 0, 1, 0, 1, 0, 1, 0])
    losses = column([0.1, 0.1, 9.0, 0.1, 0.2, 7.0, 0.3, 0.2])
    every = torch.ones(1, 8, 1, dtype=torch.bool)
    kept = trusted(losses, targets, every, 0.25)[0, :, 0].tolist()
    assert kept == [True, True, False, True, True, False, True, True]
    assert trusted(losses, targets, every, 0.0).all()
    two = trusted(torch.cat([losses, losses * 0]), torch.cat([targets] * 2), torch.cat([every] * 2), 0.25)
    assert two[0, :, 0].tolist() == kept
    unknown = every.clone()
    unknown[0, 2] = False
    assert not trusted(losses, targets, unknown, 0.25)[0, 2], "what is not known never counts"


def test_smoothed_targets_forgive_a_certain_error_and_weights_stay_those_of_hard_labels() -> None:
    targets, mask, one = column([1.0, 0, 0, 0, 0]), torch.ones(1, 5, 1, dtype=torch.bool), torch.ones(1)
    sure = column([9.0, -9, -9, -9, -9])
    hard, soft = (shift_tolerant(sure, targets, mask, one, 0, s)[0] for s in (0.0, 0.1))
    assert float(hard.max()) < 0.01 < 0.5 < float(soft.min()), "being sure costs"
    heavy = shift_tolerant(sure, targets, mask, 5 * one, 0, 0.1)[0]
    assert float(heavy[0, 0, 0]) == pytest.approx(5 * float(soft[0, 0, 0]))
    assert torch.equal(heavy[0, 1:], soft[0, 1:])


def planted(seed: int, errors: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows (track, time, 3) whose first value tells a mark, and marks: right ones, and as they are told when
    a quarter is shifted to where nothing is."""
    rng = np.random.default_rng(seed)
    right = np.zeros((12, 120, 1), np.float32)
    right[:, 3::8] = 1.0
    rows = rng.normal(0, 1.0, (12, 120, 3)).astype(np.float32)
    rows[..., :1] += 2.0 * right
    told = right.copy()
    if errors:
        for track in told:
            wrong = rng.choice(np.flatnonzero(track[:, 0]), 4, replace=False)
            track[wrong, 0], track[wrong + 4, 0] = 0.0, 1.0
    return torch.from_numpy(rows), torch.from_numpy(right), torch.from_numpy(told)


@pytest.mark.parametrize("doubt", ["small_loss", "co_teaching"])
def test_a_model_that_doubts_learns_more_from_marks_of_which_a_quarter_is_wrong(doubt: str) -> None:
    """Cross-entropy against the right marks of other rows: planted errors cost, and doubt wins back."""

    def learned(doubt: str) -> float:
        of = task("beats", doubt=doubt, doubted=0.27, frame_loss="dilated")
        of.tolerance = 0.0
        state = {"weight": [1.0, 1.0]}
        rows, _, told = planted(0, errors=True)
        n = 2 if doubt == "co_teaching" else 1
        torch.manual_seed(0)
        heads = [torch.nn.Linear(3, 1) for _ in range(n)]
        optimiser = torch.optim.Adam([p for h in heads for p in h.parameters()], 0.05)
        mask = torch.ones(12, 120, 2, dtype=torch.bool)
        for _ in range(150):
            said = torch.cat([h(rows).expand(-1, -1, 2) for h in heads], dim=-1)
            total, count = of.loss(said, told.expand(-1, -1, 2), mask, state)
            optimiser.zero_grad()
            (total / count).backward()
            optimiser.step()
        rows, right, _ = planted(1, errors=False)
        with torch.inference_mode():
            said = torch.stack([h(rows) for h in heads]).mean(dim=0)
            return float(torch.nn.functional.binary_cross_entropy_with_logits(said, right))

    assert learned(doubt) < learned("none") - 0.01
