"""An ablation as a table for the terminal (100 columns) and for a page (Markdown)."""

from __future__ import annotations

from beatmeter.evaluation.comparison.compare import ALPHA, SystemMetric
from beatmeter.evaluation.metrics import METRICS
from beatmeter.evaluation.report.comparison_report import shown_p
from beatmeter.evaluation.report.text import table, wrapped
from beatmeter.experiments.ablation.result import Ablation, Row
from beatmeter.runtime.display import cut


def ablation_text(a: Ablation) -> str:
    """Headline with tests, then the other metrics and what every system cost, then how to read it."""
    head, *others = a.metrics
    lines = wrapped(f"{a.plan.title}: {a.plan.question}") + wrapped(_about(a))
    rows = [
        [cut(r.system, 26), str(len(r.seeds)), _value(r.metrics[head]), *_tested(r, head)] for r in a.rows
    ]
    lines += ["", *table(["system", "seeds", METRICS[head].title, "difference", "p (Holm)", ""], rows)]
    rows = [
        [
            cut(r.system, 26),
            *(_marked(r, m) for m in others),
            f"{r.train_tracks:g}",
            f"{r.best_epoch:.3g}",
            f"{r.seconds:.3g}",
        ]
        for r in a.rows
    ]
    lines += ["", *table(["system", *(_short(m) for m in others), "train", "epoch", "s"], rows)]
    lines += ["", *(line for note in notes(a) for line in wrapped(note))]
    return "\n".join(lines) + "\n"


def ablation_markdown(a: Ablation) -> str:
    """The same as one Markdown table, with its notes."""
    head, *others = a.metrics
    header = ["system", "seeds", METRICS[head].title, "± seeds", "difference", "p (Holm)", "verdict"]
    header += [*(_short(m) for m in others), "train tracks", "best epoch", "s per run"]
    lines = [
        f"**{a.plan.title}.** {a.plan.question} {_about(a)}",
        "",
        _line(header),
        _line(["---", *["---:"] * (len(header) - 1)]),
    ]
    for r in a.rows:
        m = r.metrics[head]
        spread = f"{m.spread:.3f}" if len(r.seeds) > 1 else "-"
        difference, p, verdict = _tested(r, head)
        cells = [
            r.system,
            str(len(r.seeds)),
            _value(m),
            spread,
            difference,
            p,
            "not distinguishable" if verdict == "-" else verdict,
        ]
        lines.append(
            _line(
                [
                    *cells,
                    *(_marked(r, n) for n in others),
                    f"{r.train_tracks:g}",
                    f"{r.best_epoch:.3g}",
                    f"{r.seconds:.3g}",
                ]
            )
        )
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes(a))]).rstrip() + "\n"


def notes(a: Ablation) -> list[str]:
    """How the figures came about, and what they can and cannot say."""
    seeds = max(len(r.seeds) for r in a.rows)
    drawn = "groups (songs), and seeds anew for each of them" if seeds > 1 else "groups (songs)"
    found = [
        f"Values are means over seeds with 95 % intervals from a bootstrap that draws {drawn}. Differences "
        f"are to {a.plan.baseline!r} on the same "
        f"draws; p is adjusted by Holm over the {len(a.rows) - 1} comparisons, for every metric on its own. "
        f"- is not distinguishable at {100 * ALPHA:g} %; * marks the other metrics that differ from the "
        "baseline.",
        (
            "Every run kept its best epoch by val, so these figures flatter all systems a little. Choose "
            "here, then report on test (--split test)."
        )
        if a.split == "val"
        else f"The split is {a.split}: it reports what was chosen on val, and nothing should be chosen here.",
    ]
    if 1 in {len(r.seeds) for r in a.rows}:
        found.append("One seed says nothing of the spread between seeds.")
    found += [f"Failed and left out: {cell}: {reason}" for cell, reason in a.missing.items()]
    return found


def _about(a: Ablation) -> str:
    told = f"{a.items} items in {a.groups} groups of the split {a.split!r}."
    return f"{told} {a.features[:1].upper()}{a.features[1:]}." if a.features else told


def _value(m: SystemMetric) -> str:
    return f"{m.mean.value:.3f} [{m.mean.low:.3f}, {m.mean.high:.3f}]"


def _tested(r: Row, metric: str) -> tuple[str, str, str]:
    """Difference, adjusted p and verdict."""
    t = r.tests.get(metric)
    if t is None:
        return "baseline", "", ""
    verdict = "-" if t.verdict == "not distinguishable" else t.verdict
    return f"{t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}]", shown_p(t.adjusted), verdict


def _marked(r: Row, metric: str) -> str:
    t = r.tests.get(metric)
    return f"{r.metrics[metric].mean.value:.3f}" + ("*" if t and t.verdict != "not distinguishable" else "")


def _short(metric: str) -> str:
    return {"primary_ece": "ECE", "map": "mAP", "log_loss": "log loss"}.get(metric, METRICS[metric].title)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
