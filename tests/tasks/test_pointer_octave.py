"""The tool that learns what tells beats found twice too fast, on tracks of which it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beatmeter.schema import MarkList
from beatmeter.tasks.structure.decoding import Beats

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import pointer_octave

    return pointer_octave


def beats(seconds: float) -> Beats:
    times = np.arange(0.5, 30.0, seconds)
    return Beats(times, np.arange(len(times)) % 3 + 1, np.ones(len(times)), "3")


def planted(tool: Any, tracks: int = 12) -> list[Any]:
    """Tracks of two sources with a beat every half second; every other one is annotated at half the tempo,
    and there every second beat is weak."""
    rng = np.random.default_rng(0)
    fast, slow, found = beats(0.5), beats(1.0), []
    for i in range(tracks):
        true, weak = (slow, 2.0) if i % 2 else (fast, 0.5)
        truth = MarkList.moments("beat", true.times, [str(place) for place in true.places])
        cues = (weak + 0.1 * rng.normal(), rng.normal(), float(np.log(0.5)))
        source = "songs" if i < tracks // 2 else "clips"
        found.append(tool.Heard(source, f"g{i}", truth, np.zeros((750, 2)), 25.0, 0.0, fast, slow, cues))
    return found


def test_weights_of_other_sources_choose_the_octave(tool: Any) -> None:
    heard = planted(tool)
    np.testing.assert_allclose(tool.held_out(heard), 1.0)
    never = tool.outcomes(heard, np.array([-1.0, 0, 0, 0]), np.inf)
    assert (never[::2] == 1.0).all()
    assert (never[1::2, 0] < 0.7).all(), "beats twice too fast"


def test_two_networks_are_compared_on_the_same_tracks(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    heard = planted(tool)
    never = tool.outcomes(heard, np.array([-1.0, 0, 0, 0]), np.inf)
    tool.compare("test", heard, tool.held_out(heard), never)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [row[:2] for row in rows] == [["all", "12"], ["songs", "6"], ["clips", "6"]]
    new, old, apart = (float(value) for value in rows[0][3:6])
    assert new == 1.0
    assert apart == pytest.approx(new - old, abs=0.0011)
    assert apart > 0.1
