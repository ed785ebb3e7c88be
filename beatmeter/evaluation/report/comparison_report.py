"""The page of a comparison: which system is better, whether that can be known, and which clips changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from beatmeter.evaluation.comparison.compare import Comparison, Pair, System
from beatmeter.evaluation.comparison.gate import gate
from beatmeter.evaluation.figures import comparison as draw
from beatmeter.evaluation.metrics import METRICS
from beatmeter.evaluation.report.page import Card, Drawn, Table, page
from beatmeter.evaluation.report.players import SECONDS, Clip, Locate, clip_of, sounding
from beatmeter.runtime.display import count

MOST = 24  # clips that changed, shown for every pair


def verdict(pair: Pair) -> str:
    """The answer to "which is better?" in one sentence, from the first metric."""
    t = pair.tests[0]
    name = METRICS[t.metric].title
    interval = f"{t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}] in {name}, {shown_p(t.adjusted, 'p')}"
    if t.verdict == "not distinguishable":
        return f"{pair.first} and {pair.second} are not distinguishable: {interval}"
    return f"{pair.second} is {t.verdict} than {pair.first}: {interval}"


def shown_p(p: float, name: str = "") -> str:
    """A p-value with two digits, never as 0; with a `name`, as "p = 0.03" or "p < 0.0001"."""
    if p < 0.0001:
        return f"{name} < 0.0001".strip()
    text = f"{p:.2g}" if p < 0.995 else "1"
    return f"{name} = {text}" if name else text


def pair_figures(c: Comparison, pair: Pair) -> list[Drawn]:
    """Differences, classes won and lost, and for single seeds the matrix of who is right."""
    tag = f"{_slug(pair.first)}-{_slug(pair.second)}"
    found = [
        Drawn(
            f"differences-{tag}",
            draw.differences(pair),
            "Differences",
            f"Right of the line {pair.second} is better, left {pair.first}. Grey: not distinguishable. 95% "
            "intervals.",
        ),
        Drawn(
            f"changes-{tag}",
            draw.classes(pair),
            "Won and lost by class",
            f"Blue: items that only {pair.second} answers right. Red: only {pair.first}.",
        ),
    ]
    by_name = {s.name: s for s in c.systems}
    a, b = by_name[pair.first], by_name[pair.second]
    if a.seeds == b.seeds == 1:
        g = gate(b.runs[0], a.runs[0], (b.name, a.name))
        found.append(
            Drawn(
                f"agreement-{tag}",
                draw.gate(g),
                "Who is right",
                f"Candidate: {b.name}. They agree on {100 * g.agreement.value:.0f}% of the items.",
            )
        )
    return found


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def comparison_figures(c: Comparison) -> list[Drawn]:
    """One metric of all systems."""
    names = [m for m in ("accuracy", "balanced_accuracy") if m in c.metrics[c.systems[0].name]]
    return [
        Drawn(
            f"systems-{m}",
            draw.systems(c, m),
            METRICS[m].title.capitalize(),
            "Mean with its 95% interval; rings are single seeds.",
        )
        for m in names
    ]


def comparison_page(
    c: Comparison, title: str, locate: Locate | None = None, seconds: float = SECONDS, command: str = ""
) -> str:
    """The whole page as HTML text. `locate` finds audio by id; without it there are no players."""
    p = c.systems[0].runs[0]
    lead = f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}" + (
        f" of the split {p.split}" if p.split else ""
    )
    if c.left_out:
        lead += f"; {count(c.left_out, 'item')} left out that not all systems have"
    by_name = {s.name: s for s in c.systems}
    pairs = [
        {
            "title": f"{pair.first} → {pair.second}",
            "drawn": pair_figures(c, pair),
            "tests": _tests_table(pair),
            "note": _tests_note(pair),
            "changed": (
                f"{count(len(pair.changes), 'clip')} changed; bars are the scores of {pair.second}, the "
                "largest change first."
            ),
            "clips": sounding(_clips(by_name, pair), locate, seconds),
        }
        for pair in c.pairs
    ]
    glance = [_card(pair) for pair in c.pairs]
    drawn = comparison_figures(c)
    return page(
        "comparison.html",
        title,
        lead,
        glance=glance,
        drawn=drawn,
        systems=_systems_table(c),
        pairs=pairs,
        command=command,
    )


def _card(pair: Pair) -> Card:
    t = pair.tests[0]
    big = {"better": f"{pair.second} is better", "worse": f"{pair.second} is worse"}.get(
        t.verdict, "not distinguishable"
    )
    text = (
        f"{t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}] in {METRICS[t.metric].title}, "
        f"{shown_p(t.adjusted, 'p')}; "
    )
    text += f"{pair.gains:.4g} items gained, {pair.losses:.4g} lost"
    return Card(
        f"{pair.first} → {pair.second}",
        big,
        text,
        "ok" if t.verdict == "better" else "warning" if t.verdict == "worse" else "",
    )


def _systems_table(c: Comparison) -> Table:
    names = list(c.metrics[c.systems[0].name])
    rows = []
    for s in c.systems:
        values = [c.metrics[s.name][m] for m in names]
        rows.append(
            [
                s.name,
                str(s.seeds),
                *(f"{v.mean.value:.3f}" + (f" ± {v.spread:.3f}" if s.seeds > 1 else "") for v in values),
            ]
        )
    return Table(["system", "seeds", *(METRICS[m].title for m in names)], rows)


def _tests_table(pair: Pair) -> Table:
    rows = [
        [
            METRICS[t.metric].title,
            f"{t.difference:+.3f}",
            f"[{t.low:+.3f}, {t.high:+.3f}]",
            shown_p(t.p),
            shown_p(t.adjusted),
            t.verdict,
        ]
        for t in pair.tests
    ]
    colours = [{"better": "blue", "worse": "red"}.get(t.verdict, "") for t in pair.tests]
    return Table(
        ["metric", "difference", "95% interval", "p", "p (Holm)", f"{pair.second} is"], rows, colours=colours
    )


def _tests_note(pair: Pair) -> str:
    exact = (
        ""
        if math.isnan(pair.mcnemar)
        else f" McNemar's exact test, which takes items as independent: {shown_p(pair.mcnemar, 'p')}."
    )
    return (
        "Accuracy: sign flips of whole groups; other metrics: paired bootstrap over groups. Holm's "
        f"correction over the pairs.{exact}"
    )


def _clips(systems: Mapping[str, System], pair: Pair) -> list[Clip]:
    second = systems[pair.second]
    mean = replace(second.runs[0], scores=np.mean([r.scores for r in second.runs], axis=0))
    clips = []
    for change in pair.changes[:MOST]:
        word = "gained" if change.gained else "lost"
        change_text = (
            f"{word}: label {change.label}, {pair.first} says {change.first}, {pair.second} {change.second}"
        )
        clips.append(clip_of(mean, change.index, change_text))
    return clips
