"""beatmeter similarity score"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.options import TERMINAL
from beatmeter.runtime.artifacts import to_json

if TYPE_CHECKING:
    import numpy as np

    from beatmeter.evaluation.metrics import Estimate
    from beatmeter.evaluation.metrics.significance import Difference
    from beatmeter.evaluation.similarity import Retrieval
    from beatmeter.schema import Embeddings

PATH = click.Path(path_type=Path)
VECTORS, SECOND, ALL = "vectors", "50 nearest aligned", "all pairs aligned"


@dataclass(frozen=True)
class Scored:
    """Ways of ranking the same items: how each does, how much above the vectors, by the columns of the
    query, and by which columns each view tells items of different labels apart."""

    ways: Mapping[str, Retrieval]
    above: Mapping[str, Difference]
    by: Mapping[str, Mapping[str, Mapping[str, Estimate]]]  # column, value, way
    selectivity: Mapping[str, Mapping[str, Estimate]]  # view, factor

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        from beatmeter.evaluation.similarity import estimate_json

        return {
            "ways": {name: found.to_json() for name, found in self.ways.items()},
            "mAP above vectors": {
                name: {"value": d.value, "low": d.low, "high": d.high, "p": d.p}
                for name, d in self.above.items()
            },
            "hit@10 by": {
                column: {
                    value: {way: estimate_json(e) | {"queries": e.n} for way, e in ways.items()}
                    for value, ways in values.items()
                }
                for column, values in self.by.items()
            },
            "selectivity": {
                view: {factor: estimate_json(e) for factor, e in areas.items()}
                for view, areas in self.selectivity.items()
            },
        }


@click.command(short_help="does every track find the others of its label?")
@click.argument("embeddings", type=PATH, metavar="E.npz")
@click.option("--data", type=click.Path(), help="What E.npz was made of, for --factors and --by.")
@click.option(
    "--factors",
    default="",
    metavar="COLUMNS",
    help="What the vectors should not hear: instrument,key; of numbers tempo~0.04 are the same within 4 %.",
)
@click.option(
    "--by", default="", metavar="COLUMNS", help="hit@10 by the query's version, transposition, tempo, ..."
)
@click.option(
    "--rerank",
    type=click.Choice(["align", "all"]),
    help="Beside the vectors: each query's 50 nearest aligned, or all pairs aligned too.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def score(
    embeddings: Path, data: str | None, factors: str, by: str, rerank: str | None, as_json: bool
) -> None:
    """Does every item of E.npz find the others of its label? (embed --label says what belongs together)

    mAP, MAP@R, hit@1, hit@10 and the mean rank of the first hit (MR1), with 95 % intervals over labels,
    beside labels that were shuffled; hubness. By --factors a table of views: how well a likeness of items of
    different labels tells whether they share an instrument or a key (area under the ROC curve; .5: not).

    \b
    beatmeter embed harmony MUSIC/ --label work --out music.npz
    beatmeter similarity score music.npz --rerank all
    beatmeter similarity score music.npz --data MUSIC/ --factors instrument,key --by version
    """
    from beatmeter.evaluation.similarity import (
        above,
        factor_of,
        judge,
        judge_parts,
        likeness_of_views,
        selectivity,
    )
    from beatmeter.serving.gallery import read_embeddings

    record = read_embeddings(embeddings)
    shares = dict(factor_of(text) for text in _names(factors))
    groups = _names(by)
    columns = columns_of(record, data, [*shares, *groups], "--factors, --by")
    ways = {VECTORS: record.unit @ record.unit.T} | _aligned(record, rerank)
    views = {name: likeness for name, likeness in ways.items() if name != SECOND} | likeness_of_views(record)
    found = Scored(
        {name: judge(record, scores) for name, scores in ways.items()},
        {name: above(record, ways[VECTORS], scores) for name, scores in ways.items() if name != VECTORS},
        {
            column: _turned({w: judge_parts(record, s, columns[column]) for w, s in ways.items()})
            for column in groups
        },
        selectivity(views, record.labels, {name: (columns[name], share) for name, share in shares.items()}),
    )
    click.echo(to_json(found.to_json()) if as_json else "\n".join(_text(found)))


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in text.split(",") if name.strip()]


def columns_of(
    record: Embeddings, data: str | None, names: Sequence[str], option: str
) -> dict[str, list[str]]:
    """The values of columns of the data set that an option names, by item; "" where nobody knows. Raises
    ConfigError, DataError."""
    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.columns import require_columns, text_of
    from beatmeter.errors import ConfigError
    from beatmeter.settings import METERS, DataConfig

    if not names:
        return {}
    if data is None:
        raise ConfigError(f"{option}: these are columns of a data set", "Name it with --data.")
    tracks = {t.id: t for t in open_dataset(data, DataConfig(path=data), METERS, labelled=False).tracks}
    require_columns(tuple(tracks.values()), tuple(names), option)
    return {n: [text_of(tracks[i], n) if i in tracks else "" for i in record.ids] for n in names}


def _aligned(record: Embeddings, rerank: str | None) -> dict[str, np.ndarray]:
    """(item, item) scores where the nearest 50 of each query were aligned and the others follow in the order
    of the vectors, or all were."""
    import numpy as np

    from beatmeter.serving.search import CANDIDATES, beside_all_others, beside_landmarks, raw_alignment

    if rerank is None:
        return {}
    far = record.unit @ record.unit.T - 1e6
    second, every = far.astype(np.float64), np.zeros(far.shape)
    with TERMINAL.track("aligning", len(record), "queries") as tick:
        for i in range(len(record)):
            order = np.argsort(-far[i], kind="stable")
            order = order[order != i]
            near = order[:CANDIDATES]
            query, others = record.take([i]), record.take(order if rerank == "all" else near)
            raw = raw_alignment(query, others)
            if rerank == "all":
                every[i, order] = raw
            second[i, near] = beside_landmarks(query, record.take(near), raw[: len(near)])
            tick(1)
    return {SECOND: second} | ({ALL: beside_all_others(every)} if rerank == "all" else {})


def _turned(ways: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    """By value, then way; numbers in their order."""

    def place(value: str) -> tuple[float, str]:
        try:
            return float(value.split(" to ")[0]), value
        except ValueError:
            return float("inf"), value

    values = sorted(next(iter(ways.values())), key=place)
    return {value: {way: found[value] for way, found in ways.items()} for value in values}


def _text(found: Scored) -> list[str]:
    from beatmeter.evaluation.report.text import table

    first = found.ways[VECTORS]
    lines = [f"{first.queries} queries of {first.labels} labels; 95 % intervals over labels", ""]
    rows = [
        [metric, *(_cell(r.metrics[metric]) for r in found.ways.values()), _digits(first.null[metric])]
        for metric in first.metrics
    ]
    rows.append(["hubness", *(f"{r.hubness:.2f}" for r in found.ways.values()), ""])
    lines += table(["", *found.ways, "shuffled"], rows)
    lines += [
        f"{name}: mAP {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] above the vectors (p {_p(d.p)})"
        for name, d in found.above.items()
    ]
    lines.append(f"mean cosine {first.mean_cosine:.3f}")
    for column, values in found.by.items():
        cells = [[v, str(e[VECTORS].n), *(_cell(x) for x in e.values())] for v, e in values.items()]
        lines += ["", "hit@10 by " + column, *table([column, "queries", *found.ways], cells)]
    if found.selectivity:
        names = list(next(iter(found.selectivity.values())))
        cells = [[view, *(_cell(areas[n]) for n in names)] for view, areas in found.selectivity.items()]
        lines += ["", "what a likeness of different labels tells (area; .5: nothing)"]
        lines += table(["view", *names], cells)
    return lines


def _cell(e: Estimate) -> str:
    if e.value != e.value:
        return "-"
    return f"{_digits(e.value)} [{_digits(e.low)}, {_digits(e.high)}]"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value > 1 else f"{value:.3f}".removeprefix("0")


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
