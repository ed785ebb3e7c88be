"""The page of one run, or of one predictions file: how good, how sure, which errors, output leakage or
not, which thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from beatmeter.evaluation.calibration import selective_table
from beatmeter.evaluation.diagnostics import layers, training
from beatmeter.evaluation.diagnostics.leakage import leakage_sentences
from beatmeter.evaluation.diagnostics.limits import percent
from beatmeter.evaluation.metrics import METRICS, Estimate
from beatmeter.evaluation.report.evaluation import Evaluation
from beatmeter.evaluation.report.page import Card, Drawn, Table, by_level, page
from beatmeter.evaluation.report.players import SECONDS, Locate, sounding, worst
from beatmeter.evaluation.report.run_figures import run_figures
from beatmeter.evaluation.report.subject import Subject
from beatmeter.evaluation.report.text import verdict_text
from beatmeter.runtime.artifacts import to_json_line
from beatmeter.runtime.display import count
from beatmeter.schema import Finding

SHOWN = 200  # tracks that were left out


def run_page(
    s: Subject,
    locate: Locate | None = None,
    seconds: float = SECONDS,
    command: str = "",
    drawn: Mapping[str, Sequence[Drawn]] | None = None,
) -> str:
    """The whole page as HTML text. `locate` finds audio by id; without it there are no players. `drawn` are
    the figures of `run_figures`, made here when they are not given."""
    e, p = s.evaluation, s.evaluation.predictions
    drawn = drawn if drawn is not None else run_figures(s)
    summary = next(f for f in e.findings if f.name == "summary")
    lead = (
        f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}"
        + (f" of the split {p.split}" if p.split else "")
        + f"; classes {', '.join(p.classes)}"
    )
    spec = s.about.get("spec") or {}
    if spec:
        lead += f"; features {spec.get('backbone')}: {', '.join(p['name'] for p in spec.get('poolings', []))}"
    return page(
        "run.html",
        s.name,
        lead,
        glance=glance(e),
        verdict=verdict_text(e.verdict),
        summary=summary,
        drawn=drawn,
        corrected=s.corrected is not None,
        metrics=_metrics_table(s),
        pairs=_pairs_table(e),
        within=_within_table(e),
        maps=", ".join(
            f"{c} {m.kind}" for c, m in zip(s.calibration.classes, s.calibration.maps, strict=True)
        )
        if s.calibration
        else "",
        calibration=_calibration_table(s),
        thresholds=(thresholds := _thresholds_table(s)),
        pooled=thresholds is not None
        and any(cell.endswith("*") for row in thresholds.rows for cell in row[1:]),
        wrong=sounding(worst(p), locate, seconds),
        findings=by_level([*e.findings[1:], *epochs_findings(s)]),
        items=_items_table(s),
        sources=_sources_table(s),
        excluded=_excluded(s),
        facts=Table(["", ""], facts, wrap=(1,)) if (facts := _facts(s)) else None,
        config=s.config,
        commands="\n".join(line for line in (str(s.about.get("command", "")), command) if line),
    )


def glance(e: Evaluation) -> list[Card]:
    """Five cards: how good, how sure, which errors, output leakage or not, which thresholds."""
    p, overall = e.predictions, e.measures.overall
    accuracy, balanced = overall["accuracy"], overall["balanced_accuracy"]
    table = selective_table(p)
    row = min(table, key=lambda r: abs(r.coverage - 0.8))
    reliability = next(f for f in e.findings if f.name == "reliability")
    confusion = e.measures.confusion
    wrong = sorted(
        (
            (int(confusion[i, j]), i, j)
            for i in range(len(p.classes))
            for j in range(len(p.classes))
            if i != j and confusion[i, j]
        ),
        key=lambda t: -t[0],
    )
    errors = (
        "; ".join(f"{p.classes[i]} as {p.classes[j]} ({n})" for n, i, j in wrong[:3])
        or "every answer is right"
    )
    first = f"{p.classes[wrong[0][1]]} → {p.classes[wrong[0][2]]}" if wrong else "none"
    leakage, floor = e.finding("leakage"), e.finding("noise_floor")
    leak = str(leakage.values["verdict"]) if leakage else "none"
    words = {"none": "none", "leakage": "yes", "raised floor": "raised floor"}
    cards = [
        Card(
            "How good?",
            percent(accuracy.value),
            f"right, 95% interval {_span(accuracy)}; balanced {percent(balanced.value)} {_span(balanced)}",
            "ok",
        ),
        Card(
            "How sure?",
            percent(row.accuracy),
            f"right among the surest {percent(row.coverage)}; calibration error "
            f"{overall['primary_ece'].value:.2f}",
            reliability.level if reliability.level != "note" else "",
        ),
        Card("Which errors?", first, errors),
        Card(
            "Output leakage?",
            words[leak],
            ". ".join(leakage_sentences(leakage.values)) if leakage else "",
            "warning" if leak != "none" else "ok",
        ),
    ]
    if floor is None:
        return [
            *cards,
            Card("Second meter from", "unknown", "no single-meter item is answered right", "warning"),
        ]
    quantiles = floor.values["overall"]["quantiles"]
    evaluation, production = quantiles["p95"]["value"], quantiles["p99"]["value"]
    effect = floor.values["effects"]["evaluation"]
    found = (
        f", finds {percent(effect['found']['value'])} of those with several meters"
        if effect["found"]["n"]
        else ""
    )
    alarms = percent(effect["false_alarms"]["value"] or 0.0)
    text = (
        f"in evaluation, {production:.2f} in production; the first flags {alarms} of single-meter "
        f"items{found}"
    )
    return [
        *cards,
        Card("Second meter from", f"{evaluation:.2f}", text, "warning" if floor.values["reaching"] else "ok"),
    ]


def _span(e: Estimate) -> str:
    return f"[{100 * e.low:.0f}, {100 * e.high:.0f}]"


def _number(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _metrics_table(s: Subject) -> Table:
    """All metrics with intervals; original and corrected labels side by side where there are corrections."""
    header, rows = ["metric", "value [95% interval]", "items"], []
    corrected = s.corrected.measures.overall if s.corrected else {}
    if s.corrected:
        header = ["metric", "original labels", "corrected labels", "items"]
    for name, e in s.evaluation.measures.overall.items():
        beside = [_number(corrected[name]) if name in corrected else "-"] if s.corrected else []
        rows.append([METRICS[name].title, _number(e), *beside, str(e.n)])
    return Table(header, rows)


def _pairs_table(e: Evaluation) -> Table | None:
    if not e.measures.pairs:
        return None
    rows = [
        [
            "+".join(r.pair),
            str(r.items),
            f"{percent(r.top2.value)} {_span(r.top2)}",
            f"{percent(r.above.value)} {_span(r.above)}",
        ]
        for r in e.measures.pairs
    ]
    return Table(["meters", "items", "both on top", "both above 0.5"], rows)


def _within_table(e: Evaluation) -> Table | None:
    if not e.sources:
        return None
    rows = [
        [
            r.source or "(none)",
            str(r.items),
            f"{percent(r.accuracy.value)} {_span(r.accuracy)}",
            percent(r.source_only),
            f"{r.majority} ({percent(r.majority_share)})",
        ]
        for r in e.sources
    ]
    return Table(["source", "items", "accuracy", "source alone", "mostly"], rows)


def _calibration_table(s: Subject) -> Table | None:
    if s.calibration is None:
        return None
    p = s.evaluation.predictions
    after = s.calibration.apply(p)
    names = ("accuracy", "balanced_accuracy", "primary_ece", "ece", "log_loss", "brier")
    rows = [
        [
            METRICS[n].title,
            f"{float(METRICS[n].value(p, None)):.3f}",
            f"{float(METRICS[n].value(after, None)):.3f}",
        ]
        for n in names
    ]
    return Table(["metric", "raw", "calibrated"], rows)


def _thresholds_table(s: Subject) -> Table | None:
    floor = s.evaluation.finding("noise_floor")
    if floor is None:
        return None
    told = floor.values["thresholds"]
    header, rows = ["class", "evaluation (P95)", "production (P99)", "second in"], []
    for c in s.evaluation.predictions.classes:
        items = floor.values["by_class"].get(c, {}).get("items", 0)
        row = [
            c,
            *(
                f"{told[k][c]:.3f}" + ("*" if c in told["pooled"][k] else "")
                for k in ("evaluation", "production")
            ),
            str(items),
        ]
        if s.calibration is not None:
            at = s.calibration.classes.index(c)
            row += [f"{s.calibration.thresholds[k][at]:.3f}" for k in ("evaluation", "production", "best_f1")]
        rows.append(row)
    if s.calibration is not None:
        header += ["calibrated: evaluation", "production", "best F1"]
    return Table(header, rows)


def _items_table(s: Subject) -> Table:
    """Counts by class and split."""
    p = s.evaluation.predictions
    splits = sorted(
        [*s.others, p],
        key=lambda q: ("train", "val", "test").index(q.split) if q.split in ("train", "val", "test") else 3,
    )
    rows = [[c, *(str(int((q.primary == k).sum())) for q in splits)] for k, c in enumerate(p.classes)]
    rows.append(["two or more meters", *(str(int(((q.targets > 0).sum(axis=1) > 1).sum())) for q in splits)])
    rows.append(["without a label", *(str(int((q.primary < 0).sum())) for q in splits)])
    rows.append(["items (groups)", *(f"{len(q)} ({len(set(q.groups))})" for q in splits)])
    return Table(["class", *(q.split or "items" for q in splits)], rows)


def _sources_table(s: Subject) -> Table | None:
    counts = Counter(s.evaluation.predictions.sources)
    if set(counts) == {""}:
        return None
    return Table(["source", "items"], [[name or "(none)", str(n)] for name, n in counts.most_common()])


def _excluded(s: Subject) -> dict[str, Any] | None:
    """What was left out, and why."""
    if not s.excluded:
        return None
    kinds = Counter(row.get("kind") or "other" for row in s.excluded)
    rows = [[row.get("id", ""), row.get("kind", ""), row.get("reason", "")] for row in s.excluded[:SHOWN]]
    return {
        "total": len(s.excluded),
        "kinds": ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()),
        "table": Table(["id", "kind", "reason"], rows, wrap=(2,)),
        "more": max(0, len(s.excluded) - SHOWN),
    }


def _facts(s: Subject) -> list[list[str]]:
    """Hashes, counts and versions that a run wrote down."""
    about, meta = s.about, s.evaluation.predictions.meta
    data, split = about.get("data") or {}, about.get("split") or {}
    found = {
        "data set": data.get("path"),
        "data sha256": data.get("sha256"),
        "split sha256": split.get("sha256"),
        "tracks by split": ", ".join(
            f"{split['tracks'][k]} {k}" for k in ("train", "val", "test") if k in (split.get("tracks") or {})
        ),
        "features fingerprint": about.get("fingerprint") or meta.get("fingerprint"),
        "seed": about.get("seed"),
        "beatmeter": about.get("beatmeter"),
        "packages": ", ".join(f"{k} {v}" for k, v in (about.get("packages") or {}).items()),
        "ensemble": to_json_line(meta["ensemble"]) if "ensemble" in meta else None,
        "corrections": s.corrected.predictions.meta.get("corrections") if s.corrected else None,
    }
    return [[name, str(value)] for name, value in found.items() if value not in (None, "")]


def epochs_findings(s: Subject) -> list[Finding]:
    """What the log of the run says."""
    return [f for f in (training(s.history), layers(s.history)) if f is not None]
