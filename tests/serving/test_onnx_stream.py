"""A stream's belief by its formula, by its golden numbers, and by the graphs: what the page does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from beatmeter.runtime.artifacts import read_json
from beatmeter.serving.onnx.hear import Model

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_stream", ROOT / "tools" / "golden_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_stream"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden(tool: ModuleType) -> dict[str, Any]:
    return read_json(tool.FILE)


def followed(hops: list[dict[str, Any]], stream: dict[str, float], classes: int) -> list[np.ndarray]:
    """The belief after every answer, by the formula of docs/export.md."""
    beliefs: list[np.ndarray] = []
    for hop in hops:
        tells = hop["heard"] is not None
        states, k = classes + tells, hop["skipped"] + 1
        first = not beliefs
        stay = 1.0 if first else np.exp(-k * stream["hop"] / stream["duration"])
        before = np.full(states, 1 / states) if first else beliefs[-1]
        moved = stay * before + (1 - stay) / (states - 1) * (1 - before)
        p = np.clip(hop["scores"], 1e-4, 1)
        likelihood = p / p.sum()
        if tells:
            h = np.clip(hop["heard"], 1e-4, 1 - 1e-4)
            likelihood = np.append(h * classes * likelihood, 1 - h)
        share = 1.0 if first else min(1.0, k * stream["hop"] / stream["window"])
        belief = moved * likelihood**share
        beliefs.append(belief / belief.sum())
    return beliefs


def test_the_golden_file_is_what_the_tool_writes(tool: ModuleType, golden: dict[str, Any]) -> None:
    again = tool.golden()
    assert {k: v for k, v in again.items() if k not in ("pieces", "beliefs")} == {
        k: v for k, v in golden.items() if k not in ("pieces", "beliefs")
    }
    assert again["beliefs"] == golden["beliefs"]
    for name, piece in golden["pieces"].items():
        assert again["pieces"][name]["render"] == piece["render"]
        for new, old in zip(again["pieces"][name]["answers"], piece["answers"], strict=True):
            assert (new["time"], new["meter"]) == (old["time"], old["meter"])
            for key in ("scores", "heard", "belief"):
                assert np.allclose(new[key], old[key], atol=CLOSE), "python tools/golden_stream.py"


def test_the_formula_of_the_documents_gives_the_belief(golden: dict[str, Any]) -> None:
    stream = golden["stream"]
    drawn = golden["beliefs"]
    assert [max(h["skipped"] for h in d["hops"]) > 0 for d in drawn] == [True, True]
    runs = [(d["hops"], d["classes"]) for d in drawn]
    runs += [(p["answers"], len(golden["classes"])) for p in golden["pieces"].values()]
    for hops, classes in runs:
        for found, hop in zip(followed(hops, stream, classes), hops, strict=True):
            assert np.allclose(found, hop["belief"], atol=1e-5)
            named = int(np.argmax(hop["belief"]))
            assert (hop["meter"] is None) == (named == classes)


def test_a_change_of_meter_is_followed(golden: dict[str, Any]) -> None:
    answers = golden["pieces"]["a change of meter"]["answers"]
    assert answers[10]["meter"] == "4"
    assert answers[-1]["meter"] != "4"


def test_the_graphs_hear_what_the_stream_hears(
    exported: Path, tool: ModuleType, golden: dict[str, Any]
) -> None:
    """As the page does it: every chunk once, windows of their states, the last chunk at the end."""
    model, stream = Model(exported), golden["stream"]
    piece = golden["pieces"]["a meter"]
    wave, chunk, frame = tool.audio(piece["render"]), model.about["chunk"], model.about["frame"]
    starts = list(range(0, len(wave) - chunk["length"] + 1, chunk["hop"]))
    states = np.concatenate([model.states(wave[a : a + chunk["length"]]) for a in starts], axis=1)
    end = states.shape[1]
    last = model.states(wave[len(wave) - chunk["length"] :])
    skip = round((end * frame["hop"] - (len(wave) - chunk["length"])) / frame["hop"])
    states = np.concatenate([states, last[:, skip:]], axis=1)
    hops = []
    for answer in piece["answers"]:
        b = min(round(answer["time"] * frame["rate"]), states.shape[1])
        a = max(0, b - round(min(answer["time"], stream["window"]) * frame["rate"]))
        found = model.answer(states[:, a:b], a)
        assert np.allclose(found["calibrated"], answer["scores"], atol=2e-5)
        assert np.allclose(found["heard"], answer["heard"], atol=2e-5)
        hops.append({"scores": found["calibrated"], "heard": found["heard"][0], "skipped": 0})
    beliefs = followed(hops, stream, len(golden["classes"]))
    assert np.allclose(beliefs, [a["belief"] for a in piece["answers"]], atol=CLOSE)
