"""Music against sound without meter: the fit against scikit-learn, the threshold it promises, ensembles, and
what is kept of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration import Calibration, Presence, logit
from beatmeter.evaluation.calibration.presence import REFUSED, RIDGES, _logistic

KINDS = ("noise", "hum", "clicks")


def evidence(
    seed: int, music: int = 400, sounds: int = 300, apart: float = 3.0
) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Two clouds of eight values on different scales; the kinds of sounds lie in a row."""
    rng = np.random.default_rng(seed)
    scale = np.array([1, 1, 10, 0.1, 1, 1, 1, 1])
    where = np.array([apart, 0, 0, 0, 0, 0, 0, 0])
    heard = (rng.normal(size=(music, 8)) + where) * scale
    noise = rng.normal(size=(sounds, 8)) * scale
    return heard, [str(i // 2) for i in range(music)], noise, [KINDS[i * 3 // sounds] for i in range(sounds)]


@pytest.mark.parametrize("ridge", RIDGES)
def test_the_fit_is_that_of_scikit_learn(ridge: float) -> None:
    music, _, sounds, _ = evidence(0, sounds=100)
    x, y = np.concatenate([music, sounds]), np.repeat([True, False], [len(music), len(sounds)])
    weights, intercept = _logistic(x, y, ridge)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = LogisticRegression(C=1 / ridge, class_weight="balanced", tol=1e-10, max_iter=1000).fit(
        standard, y
    )
    np.testing.assert_allclose(x @ weights + intercept, theirs.decision_function(standard), atol=1e-3)


def test_the_threshold_holds_on_music_that_the_fit_does_not_know() -> None:
    presence = Presence.fit(*evidence(1))
    music, _, sounds, _ = evidence(2, music=4000, sounds=3000)
    assert (presence(music) < 0.5).mean() == pytest.approx(REFUSED, abs=0.015)
    assert (presence(sounds) < 0.5).mean() > 0.8
    assert presence.about["music"] == {
        "items": 400,
        "groups": 200,
        "refused": pytest.approx(REFUSED, abs=0.003),
    }
    assert set(presence.about["sounds"]["refused"]) == set(KINDS)


def test_music_that_is_hard_to_hear_is_learned_from_and_sets_no_threshold() -> None:
    """A third of the music lies half way to the sounds: a threshold for all of it lets more of them pass."""
    easy, _, sounds, kinds = evidence(10)
    hard = evidence(11, music=200, apart=1.5)[0]
    music, groups = np.concatenate([easy, hard]), [str(i) for i in range(600)]
    ordinary = np.arange(600) < 400
    for_all = Presence.fit(music, groups, sounds, kinds)
    presence = Presence.fit(music, groups, sounds, kinds, ordinary=ordinary)
    parts = presence.about["music"], presence.about["other music"]
    assert [part["groups"] for part in parts] == [400, 200]
    assert parts[0]["refused"] == pytest.approx(REFUSED)
    assert parts[1]["refused"] > 0.1
    assert "other music" not in for_all.about
    assert (presence(sounds) < 0.5).mean() > (for_all(sounds) < 0.5).mean() + 0.1


def test_a_kind_that_is_like_music_to_a_fit_without_it_is_reported() -> None:
    """Sounds of one kind have the mark of music and one of their own: known, they are refused; unknown, they
    are not."""
    music, groups, sounds, kinds = evidence(3)
    strange = np.array(kinds) == "clicks"
    sounds[strange, 0] += 3.0
    sounds[strange, 1] += 12.0
    presence = Presence.fit(music, groups, sounds, kinds)
    assert (presence(sounds[strange]) < 0.5).mean() > 0.9
    assert presence.about["sounds"]["refused"]["clicks"] < 0.5


def test_weights_are_held_back_as_unknown_kinds_want_it() -> None:
    """Sounds that differ from music by their kind as much as by the mark that all share: strong weights on
    what is peculiar to a kind do not help with another."""
    music, groups, sounds, kinds = evidence(12, sounds=60, apart=1.5)
    rng = np.random.default_rng(12)
    noise = rng.normal(size=(len(music) + len(sounds), 120))
    for k, kind in enumerate(KINDS):
        noise[len(music) :][np.array(kinds) == kind, 10 * k : 10 * (k + 1)] += 1.5
    wide = np.hstack([music, noise[: len(music)]]), groups, np.hstack([sounds, noise[len(music) :]]), kinds
    chosen = Presence.fit(*wide).about
    assert chosen["ridge"] > RIDGES[0]
    shares = {}
    for ridge in RIDGES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("beatmeter.evaluation.calibration.presence.RIDGES", (ridge,))
            shares[ridge] = np.mean(list(Presence.fit(*wide).about["sounds"]["refused"].values()))
    assert shares[chosen["ridge"]] == max(shares.values()) > shares[RIDGES[0]]


def test_an_ensemble_takes_the_mean_of_log_odds() -> None:
    parts = {"a": Presence.fit(*evidence(4)), "b": Presence.fit(*evidence(5))}
    joined = Presence.join(parts, {"a": 0.6, "b": 0.2, "c": 0.2})
    one, other = evidence(6, music=50)[0], evidence(7, music=50)[0]
    expected = 0.75 * logit(parts["a"](one)) + 0.25 * logit(parts["b"](other))
    np.testing.assert_allclose(logit(joined(np.hstack([one, other]))), expected, atol=1e-3)


def test_what_cannot_be_told_is_named() -> None:
    music, groups, sounds, kinds = evidence(8)
    with pytest.raises(EvaluationError, match="3 pieces of music and 300 sounds are too few"):
        Presence.fit(music[:6], groups[:6], sounds, kinds)
    with pytest.raises(EvaluationError, match="by 8 values, this model gives 5"):
        Presence.fit(music, groups, sounds, kinds)(music[:, :5])
    with pytest.raises(EvaluationError, match="not all numbers"):
        Presence((1.0, float("nan")), 0.0, {})


def test_a_calibration_keeps_it_and_one_without_it_still_loads(tmp_path: Path) -> None:
    calibration = dataclasses.replace(
        Calibration.fit(controls.selective(0, split="val")), presence=Presence.fit(*evidence(9))
    )
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again.presence == calibration.presence
    assert again.sure == calibration.sure
    value = json.loads((tmp_path / "calibration.json").read_text())
    del value["presence"], value["sure"]
    old = Calibration.from_json(value)
    assert (old.presence, old.sure) == (None, None)
    assert old.thresholds == again.thresholds


def test_sure_is_the_most_answers_of_which_enough_were_right() -> None:
    clear = Calibration.fit(controls.selective(0, split="val"))
    assert clear.sure is not None
    assert clear.sure.accuracy >= 0.95
    assert all(row.accuracy < 0.95 for row in clear.selective if row.coverage > clear.sure.coverage)
    mixed = controls.selective(0, split="val")
    half = np.arange(len(mixed)) % 2 == 0
    scores = np.where(half[:, None], mixed.scores, np.random.default_rng(0).random(mixed.scores.shape))
    mixed = dataclasses.replace(mixed, scores=scores)
    part, whole = Calibration.fit(mixed, sure_on=half), Calibration.fit(mixed)
    assert part.sure is not None
    assert whole.sure is None or whole.sure.coverage < part.sure.coverage / 2
    assert dataclasses.replace(part, sure=whole.sure) == whole, "the rest is of all"
    p = controls.selective(1, songs=120, split="val")
    guessed = dataclasses.replace(p, scores=np.random.default_rng(0).random(p.scores.shape))
    assert Calibration.fit(guessed).sure is None
    few = controls.selective(1, songs=12, split="val")
    assert len(few) < 30
    assert Calibration.fit(few).sure is None, "so few answers say little, even if all are right"
