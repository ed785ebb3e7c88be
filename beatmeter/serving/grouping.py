"""How the pulses of a bar are grouped, named beside a meter that is additive."""

from __future__ import annotations

from dataclasses import replace

from beatmeter.schema import Curves
from beatmeter.serving.answer import Answer
from beatmeter.serving.curves import CurveListener
from beatmeter.tasks.structure.folding import find_pulses, readings
from beatmeter.tasks.structure.grouping import frames_of, group, shipped_networks


def with_grouping(answer: Answer, curves: Curves, heard: CurveListener) -> Answer:
    """The answer with probabilities of the groupings of its meter, where one is sure enough to be named: its
    probability times that of the meter reaches the threshold that validation set. Else as it was.

    `curves` are those that `heard` finished, which listened with states.
    """
    assert answer.meter is not None
    start = float(curves.starts[0]) + heard.middle.start / curves.rate
    grid = find_pulses(curves.values[0][heard.middle], curves.rate, start, answer.meter)
    if grid is None:
        return answer
    found = readings(frames_of(heard.states), curves.rate, start, grid, int(answer.meter))
    networks, threshold = shipped_networks()
    chances = group(networks, found, answer.meter)
    sure = max(chances.values(), default=0.0) * float(answer.scores.max())
    return replace(answer, groupings={answer.meter: chances}) if sure >= threshold else answer
