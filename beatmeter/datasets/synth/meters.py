"""Which bars a piece has: one meter, or two at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.forms import Form, draw_form
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.timing import Layout, make_layout


@dataclass(frozen=True)
class Meters:
    """The layouts of a piece: one, or two for a polymeter."""

    form: Form
    pulse: float
    first: Layout
    second: Layout | None
    weights: dict[int, float]
    primary: int
    kind: str


def draw_meters(
    rng: np.random.Generator,
    meter: int | None,
    kind: str | None,
    seconds: float,
    options: SynthOptions,
    form_of: Callable[[np.random.Generator, int, SynthOptions], tuple[Form, float]] = draw_form,
) -> Meters:
    """Draw the bars of a piece of `seconds`; `form_of` draws form and pulse (s) of the primary class."""
    if kind is None:
        chances = (
            ("polymeter", options.polymeter),
            ("polyrhythm", options.polyrhythm),
            ("hemiola", options.hemiola),
        )
        rest = 1.0 - sum(chance for _, chance in chances)
        kind = pick(rng, (*chances, ("single", rest)))
    if kind == "hemiola":
        meter = meter if meter in (3, 4) else 3
    primary = meter if meter is not None else pick(rng, options.class_weights)
    form, pulse = form_of(rng, primary, options)
    division = draw_division(rng, form, pulse)
    span = seconds / pulse * 1.15 + 2 * form.pulses
    first = make_layout(form, pulses=span, division=division)
    if kind == "single":
        return Meters(form, pulse, first, None, {primary: 1.0}, primary, kind)
    other, second = _second_layout(rng, kind, primary, form, pulse, first, span)
    weight = float(rng.uniform(0.5, 1.0))
    return Meters(form, pulse, first, second, {primary: 1.0, other: round(weight, 3)}, primary, kind)


def _second_layout(
    rng: np.random.Generator, kind: str, primary: int, form: Form, pulse: float, first: Layout, span: float
) -> tuple[int, Layout]:
    """Another bar length over the same pulses, or another number of beats in the same bar."""
    groups = {3: (3,), 4: (4,), 5: (3, 2), 7: (4, 3), 9: (5, 4), 11: (4, 4, 3)}
    if kind == "hemiola":
        other = 4 if primary == 3 else 3
        bar: tuple[int, ...] = (2,) if other == 4 else (3,)
        return other, make_layout(
            Form(other, "hemiola", bar, form.unit), pulses=span, division=first.division
        )
    others = [other for other in METERS if other != primary]
    if kind == "polyrhythm":
        beats = len(first.group_starts()) if form.unit == "eighth" else first.pulses
        bar_seconds = pulse * first.pulses
        fitting = [(other, 1.0 / other) for other in others if bar_seconds / other > 0.11 and other != beats]
        other = pick(rng, fitting) if fitting else (3 if primary != 3 else 4)
        form2 = Form(other, "against", groups[other], "quarter")
        return other, make_layout(form2, pulses=span, division=1, unit=first.pulses / other)
    other = pick(rng, [(other, 1.0) for other in others])
    return other, make_layout(
        Form(other, "over", groups[other], form.unit), pulses=span, division=first.division
    )


def draw_division(rng: np.random.Generator, form: Form, pulse: float) -> int:
    """Ticks in a pulse of `pulse` seconds: 1 to 4, none shorter than a hand can play."""
    if form.unit == "eighth":
        return 2 if pulse > 0.17 else 1
    table = [(ticks, weight) for ticks, weight in ((4, 3.0), (2, 1.5), (3, 1.0)) if pulse / ticks > 0.075]
    return pick(rng, table) if table else 2
