"""Comparisons, gates, calibrations and ensembles for the terminal, in 100 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping

from beatmeter.evaluation.calibration import SURE, THRESHOLDS, WITNESSES, Calibration
from beatmeter.evaluation.comparison.compare import Comparison, Pair
from beatmeter.evaluation.comparison.ensemble import Ensemble
from beatmeter.evaluation.comparison.gate import AGREEMENT, RATIO, Gate
from beatmeter.evaluation.comparison.records import RecordComparison
from beatmeter.evaluation.metrics import METRICS
from beatmeter.evaluation.report.assessment import NULLS
from beatmeter.evaluation.report.comparison_report import shown_p, verdict
from beatmeter.evaluation.report.text import number, percents, table, wrapped
from beatmeter.runtime.display import count, cut
from beatmeter.schema import ClassPredictions

SHORT = {
    "accuracy": "acc",
    "accuracy_restricted": "acc*",
    "balanced_accuracy": "bal",
    "balanced_accuracy_restricted": "bal*",
    "map": "mAP",
}
SHORT |= {
    "macro_f1": "F1",
    "lrap": "LRAP",
    "log_loss": "loss",
    "primary_ece": "ECE",
    "subset_accuracy": "subset",
    "pair_recall": "pairs",
}


def comparison_text(c: Comparison, changes: int = 10) -> str:
    """Every system's metrics, then for each pair the verdict, the tests, classes won and lost, and the clips
    that changed."""
    p = c.systems[0].runs[0]
    lines = wrapped(
        f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}"
        + (f"; {c.left_out} left out that not all have" if c.left_out else "")
    )
    names = list(c.metrics[c.systems[0].name])
    seeds = any(s.seeds > 1 for s in c.systems)
    rows = []
    for s in c.systems:
        values = [c.metrics[s.name][m] for m in names]
        rows.append([cut(s.name, 24), str(s.seeds), *(number(v.mean.value) for v in values)])
        if s.seeds > 1:
            rows.append(["  spread of seeds", "", *(f"±{v.spread:.3f}" for v in values)])
    lines += ["", *table(["system", "seeds", *(SHORT.get(m, cut(m, 10)) for m in names)], rows)]
    lines += ["acc*: only classes that occur may answer"] if "accuracy_restricted" in names else []
    lines += ["±: standard deviation over seeds"] if seeds else []
    for pair in c.pairs:
        lines += ["", *_pair_lines(pair, changes)]
    lines += [
        "",
        *wrapped(
            "p (Holm) is adjusted over the pairs of systems, for every metric on its own. Groups are drawn, "
            "not items."
        ),
    ]
    return "\n".join(lines) + "\n"


def records_text(c: RecordComparison) -> str:
    """Every system's metrics and those of null systems, then the tests of each pair."""
    lines = wrapped(
        f"{count(len(c.items), 'item')} in {count(len(set(c.items.groups)), 'group')}"
        + (f"; {c.left_out} left out that not all have" if c.left_out else "")
    )
    for key, title in c.titles.items():
        rows = []
        for name, by_metric in c.metrics.items():
            m = by_metric[key]
            interval = f"[{m.mean.low:.3f}, {m.mean.high:.3f}]"
            seeds = f"{len(m.seeds)} seeds, ±{m.spread:.3f}" if len(m.seeds) > 1 else ""
            rows.append([cut(name, 24), number(m.mean.value), interval, str(m.mean.n), seeds])
        rows += [[f"({NULLS[name]})", number(values[key]), "", "", ""] for name, values in c.nulls.items()]
        lines += ["", *table([title, "value", "95 % interval", "items", ""], rows)]
    for pair in c.pairs:
        head = [
            f"{pair.second} minus {pair.first}",
            "difference",
            "95 % interval",
            "p",
            "p (Holm)",
            "verdict",
        ]
        rows = [
            [
                c.titles[t.metric],
                f"{t.difference:+.3f}",
                f"[{t.low:+.3f}, {t.high:+.3f}]",
                shown_p(t.p),
                shown_p(t.adjusted),
                t.verdict,
            ]
            for t in pair.tests
        ]
        lines += ["", *table(head, rows)]
    lines += ["", *wrapped("p (Holm) is adjusted over the pairs of systems. Groups are drawn, not items.")]
    return "\n".join(lines) + "\n"


def _pair_lines(pair: Pair, changes: int) -> list[str]:
    lines = wrapped(verdict(pair))
    head = ["metric", "difference", "95 % interval", "p", "p (Holm)", "verdict"]
    lines += table(
        head,
        [
            [
                METRICS[t.metric].title,
                f"{t.difference:+.3f}",
                f"[{t.low:+.3f}, {t.high:+.3f}]",
                shown_p(t.p),
                shown_p(t.adjusted),
                t.verdict,
            ]
            for t in pair.tests
        ],
    )
    told = f"{pair.gains:.4g} items gained, {pair.losses:.4g} lost; by class: "
    told += (
        ", ".join(f"{k.name} +{k.gains:.3g} -{k.losses:.3g}" for k in pair.classes if k.gains or k.losses)
        or "none"
    )
    if not math.isnan(pair.mcnemar):
        told += f". McNemar's exact test (items as independent): {shown_p(pair.mcnemar, 'p')}"
    lines += wrapped(told + ".")
    if pair.changes and changes:
        lines += table(
            ["changed clip", "label", cut(pair.first, 20), cut(pair.second, 20), ""],
            [
                [
                    cut(k.id, 40),
                    k.label,
                    f"{k.first} ({k.first_score:.2f})",
                    f"{k.second} ({k.second_score:.2f})",
                    "gained" if k.gained else "lost",
                ]
                for k in pair.changes[:changes]
            ],
        )
        lines += [f"and {len(pair.changes) - changes} more"] if len(pair.changes) > changes else []
    return lines


def gate_text(g: Gate) -> str:
    """The matrix, both conditions and the verdict."""
    a, c = g.agreement, g.complementarity
    rows = [
        [f"{cut(g.candidate, 30)} right", str(g.both_right), str(g.gains)],
        [f"{cut(g.candidate, 30)} wrong", str(g.losses), str(g.both_wrong)],
    ]
    lines = [f"{g.items} items" + (f", {g.left_out} left out that not both have" if g.left_out else ""), ""]
    lines += [*table(["", f"{cut(g.against, 30)} right", f"{cut(g.against, 30)} wrong"], rows), ""]
    holds = {name: "yes" if held else "no" for name, held in g.checks.items()}
    wanted = f"{100 * AGREEMENT[0]:.0f}-{100 * AGREEMENT[1]:.0f}%"
    lines += table(
        ["condition", "value", "95 % interval", "wanted", "holds"],
        [
            [
                "agreement",
                f"{100 * a.value:.1f}%",
                f"[{100 * a.low:.1f}, {100 * a.high:.1f}]",
                wanted,
                holds["agreement"],
            ],
            [
                "gains / losses",
                number(c.value, 2),
                f"[{number(c.low, 2)}, {number(c.high, 2)}]",
                f"> {RATIO:g}",
                holds["complementarity"],
            ],
        ],
    )
    sure = "surely" if g.sure else "not surely: an interval crosses its limit"
    lines += ["", *wrapped(f"{'passed' if g.passed else 'not passed'} ({sure})")]
    lines += wrapped(
        f"accuracy {percents(g.candidate_accuracy)} against {percents(g.against_accuracy)}; one of the two "
        f"is right in {percents(g.either)}. "
        f"Difference: sign flips of groups {shown_p(g.sign_flip, 'p')}, McNemar {shown_p(g.mcnemar, 'p')}."
    )
    return "\n".join(lines) + "\n"


def calibration_text(c: Calibration, effects: Mapping[str, tuple[ClassPredictions, ClassPredictions]]) -> str:
    """The map of every class with its cross-validated log loss, the thresholds, and what calibration does to
    the splits in `effects` (raw and calibrated predictions by name)."""
    lines = wrapped(
        f"fitted on {c.fitted_on['items']} items in {c.fitted_on['groups']} groups of the split "
        f"{c.fitted_on['split']!r}"
    )
    tried = list(c.log_loss)
    rows = []
    for k, name in enumerate(c.classes):
        rows.append(
            [
                cut(name, 12),
                c.maps[k].kind,
                *(f"{c.log_loss[t][k]:.4f}" for t in tried),
                *(f"{c.thresholds[t][k]:.3f}" for t in THRESHOLDS),
            ]
        )
    lines += ["", *table(["class", "map", *tried, "evaluation", "production", "best F1"], rows)]
    told = (
        f"{', '.join(tried)}: cross-validated log loss. evaluation, production: P95 and P99 of the "
        "calibrated noise floor."
    )
    lines += wrapped(told)
    if effects:
        names = ("accuracy", "balanced_accuracy", "primary_ece", "ece", "log_loss", "brier")
        rows = []
        for n in names:
            row = [METRICS[n].title]
            for raw, calibrated in effects.values():
                row += [
                    f"{float(METRICS[n].value(raw, None)):.3f}",
                    f"{float(METRICS[n].value(calibrated, None)):.3f}",
                ]
            rows.append(row)
        lines += [
            "",
            *table(
                ["metric", *(h for split in effects for h in (f"{split} raw", f"{split} calibrated"))], rows
            ),
        ]
    best = next((r for r in c.selective if r.coverage <= 0.8), None)
    if best:
        right = f"{100 * best.accuracy:.1f}% [{100 * best.low:.1f}, {100 * best.high:.1f}]"
        lines += ["", f"answering only the surest {100 * best.coverage:.0f}% is right in {right} of them"]
    lines += ["", *wrapped(_statement(c))]
    if c.pairs:
        p = c.pairs
        lines += wrapped(
            f"two meters: said where the model finds them at least {100 * p.threshold:.0f}% probable; of "
            f"{p.singles} items in one meter here {100 * p.alarms:.1f}%, of {p.doubles} in two "
            f"{100 * p.caught:.1f}%."
        )
    return "\n".join(lines) + "\n"


def _statement(c: Calibration) -> str:
    """What "sure" and "no meter heard" mean by this calibration."""
    if c.sure is None:
        told = (
            f'"sure": of no answer, because no threshold reached {100 * SURE:.0f}% right of {WITNESSES} '
            "answers or more."
        )
    else:
        right = f"{100 * c.sure.accuracy:.1f}% [{100 * c.sure.low:.1f}, {100 * c.sure.high:.1f}]"
        told = (
            f'"sure": answers from {c.sure.threshold:.2f} on, {100 * c.sure.coverage:.0f}% of all; {right} '
            "of them were right here."
        )
    if c.presence is None:
        return (
            f"{told} Without a model that hears sounds without meter no answer is called sure, and none is "
            '"no meter heard".'
        )
    if "members" in c.presence.about:
        return f'{told} "no meter heard": by the mean of {", ".join(c.presence.about["members"])}.'
    music, sounds = c.presence.about["music"], c.presence.about["sounds"]["refused"]
    other = c.presence.about.get("other music")
    besides = f"and {100 * other['refused']:.1f}% of the run's own" if other else "here"
    kinds = ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in sounds.items())
    return (
        f'{told} "no meter heard": of {100 * music["refused"]:.1f}% of the music {besides}; of sounds, '
        f"had their kind been unknown: {kinds}."
    )


def ensemble_text(e: Ensemble) -> str:
    """The weight of every member, or its coefficients by class."""
    if e.method == "mean":
        rows = [[cut(m, 60), f"{e.weights[m]:.3f}"] for m in e.members]
        silent = [m for m in e.members if e.weights[m] == 0]
        lines = table(["member", "weight"], rows)
        lines += wrapped(f"no weight: {', '.join(silent)} brought nothing on validation") if silent else []
        return "\n".join(lines) + "\n"
    rows = [[c, *(f"{e.coefficients[c][m]:+.2f}" for m in ("intercept", *e.members))] for c in e.classes]
    return "\n".join(table(["class", "intercept", *(cut(m, 18) for m in e.members)], rows)) + "\n"
