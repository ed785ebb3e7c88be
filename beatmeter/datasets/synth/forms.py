"""The metrical forms of every class, as a table.

A form is a bar: pulses in groups. The class follows the METER2800 convention: compound bars count their beats
or fold to 3 (6/8, 9/8 -> 3; 12/8 -> 4), 2/4 and 2/2 -> 4, additive bars are themselves. To add one, add a
line; one of weight 0 is played where it is named, in songs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.errors import ConfigError


@dataclass(frozen=True)
class Form:
    """groups: pulses per group. unit: "quarter" (each pulse is a beat) or "eighth" (group starts are
    beats)."""

    meter: int
    name: str
    groups: tuple[int, ...]
    unit: str
    weight: float = 1.0

    @property
    def pulses(self) -> int:
        """Pulses in the bar."""
        return sum(self.groups)

    def pulse_range(self, tempo: tuple[float, float]) -> tuple[float, float]:
        """Shortest and longest pulse in seconds at quarter tempi between `tempo`'s ends."""
        low, high = 60.0 / tempo[1], 60.0 / tempo[0]
        return (low, high) if self.unit == "quarter" else (low * 0.46, high * 0.4)


def _additive(meter: int, unit: str, *rows: tuple[str, float]) -> list[Form]:
    forms = []
    for text, weight in rows:
        groups = tuple(int(part) for part in text.split("+"))
        bar = f"{meter}/{'4' if unit == 'quarter' else '8'}"
        forms.append(Form(meter, f"{bar} {text}", groups, unit, weight))
    return forms


FORMS: tuple[Form, ...] = (
    Form(3, "3/4", (3,), "quarter", 4.0),
    Form(3, "3/8", (3,), "eighth", 1.0),
    Form(3, "6/8", (3, 3), "eighth", 3.0),
    Form(3, "9/8 compound", (3, 3, 3), "eighth", 1.5),
    Form(3, "6/4", (3, 3), "quarter", 0.3),
    Form(4, "4/4", (4,), "quarter", 3.0),
    Form(4, "4/4 2+2", (2, 2), "quarter", 2.0),
    Form(4, "2/4", (2,), "quarter", 1.5),
    Form(4, "2/2", (2, 2), "eighth", 0.7),
    Form(4, "12/8", (3, 3, 3, 3), "eighth", 1.8),
    Form(4, "8/8", (4, 4), "eighth", 1.0),
    Form(4, "4/4 in eighths", (2, 2, 2, 2), "eighth", 0.0),
    Form(4, "8/8 3+3+2", (3, 3, 2), "eighth", 0.7),
    Form(4, "16/8", (4, 4, 4, 4), "eighth", 1.0),
    *_additive(5, "quarter", ("3+2", 3.0), ("2+3", 2.0), ("5", 0.7)),
    *_additive(5, "eighth", ("3+2", 2.0), ("2+3", 2.0)),
    Form(5, "10/8", (3, 2, 3, 2), "eighth", 0.3),
    Form(5, "10/8 3+3+2+2", (3, 3, 2, 2), "eighth", 0.4),
    Form(5, "15/8", (3, 3, 3, 3, 3), "eighth", 0.3),
    *_additive(7, "quarter", ("4+3", 1.5), ("3+4", 1.2), ("2+2+3", 0.7), ("3+2+2", 0.7), ("7", 0.3)),
    *_additive(7, "eighth", ("2+2+3", 2.5), ("3+2+2", 2.5), ("2+3+2", 0.8), ("4+3", 0.5), ("3+4", 0.5)),
    *_additive(9, "quarter", ("5+4", 0.4), ("4+5", 0.4), ("2+2+2+3", 0.4), ("4+2+3", 0.3)),
    *_additive(9, "eighth", ("2+2+2+3", 3.0), ("3+2+2+2", 1.2), ("2+3+2+2", 1.2), ("2+2+3+2", 1.2)),
    *_additive(9, "eighth", ("4+5", 0.5), ("5+4", 0.5), ("4+2+3", 0.4), ("2+3+4", 0.3), ("3+2+4", 0.3)),
    *_additive(11, "quarter", ("4+4+3", 0.4), ("6+5", 0.4), ("3+3+3+2", 0.4), ("4+3+4", 0.2)),
    *_additive(11, "eighth", ("2+2+3+2+2", 3.0), ("3+3+3+2", 1.2), ("2+2+2+2+3", 1.2), ("3+2+3+3", 1.0)),
    *_additive(
        11, "eighth", ("3+2+2+2+2", 0.7), ("4+3+4", 0.6), ("4+4+3", 0.8), ("6+5", 0.4), ("2+3+3+3", 0.6)
    ),
)


def draw_form(rng: np.random.Generator, meter: int, options: SynthOptions) -> tuple[Form, float]:
    """Draw (form, pulse in seconds) of a class: the bar length first, from one distribution for all
    classes."""
    forms = [form for form in FORMS if form.meter == meter]
    for _ in range(1000):
        low, high = options.bar_seconds
        bar = float(np.exp(rng.normal(np.log(2.35), 0.52)))
        if not low <= bar <= high:
            bar = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        fitting = [(form, form.weight) for form in forms if form.weight and _admits(form, bar, options)]
        if fitting:
            form = pick(rng, fitting)
            return form, bar / form.pulses
    raise ConfigError(
        f"no bar of meter {meter} fits tempo {options.tempo} and bar_seconds {options.bar_seconds}"
    )


def _admits(form: Form, bar: float, options: SynthOptions) -> bool:
    low, high = form.pulse_range(options.tempo)
    return low <= bar / form.pulses <= high
