"""beatmeter embed, search, similarity fit | score"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from beatmeter.cli.dataset_options import jobs_option
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.runtime.artifacts import to_json

if TYPE_CHECKING:
    from beatmeter.evaluation.similarity import Retrieval
    from beatmeter.schema import Embeddings

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path())
@click.option(
    "--out", required=True, type=PATH, metavar="E.npz", help="Where the vectors go; E.json beside it."
)
@click.option(
    "--level",
    type=click.Choice(["track", "chunk"]),
    default="track",
    show_default=True,
    help="One vector for a track, or for every 20 s of it.",
)
@click.option(
    "--label", default="", metavar="COLUMN", help="Column of DATA that says what is a version of what."
)
@click.option("--parquet", type=PATH, metavar="E.parquet", help="The same as Parquet, for vector databases.")
@jobs_option
def embed(
    model: str,
    data: str,
    out: Path,
    level: Literal["track", "chunk"],
    label: str,
    parquet: Path | None,
    jobs: int,
) -> None:
    """Write one vector for each track of DATA: MODEL is harmony, a folder that `similarity fit`
    made, or a run of task.name=similarity.

    By harmony two recordings of one work lie near each other in any key and tempo; by a whitening
    (`similarity fit --kind whiten`) music that sounds alike; by a run, what it was trained on. The vector of
    a file is the same, bit for bit, in any batch and process. numpy.load reads the file: `ids`, `vectors`.

    \b
    beatmeter embed harmony MUSIC/ --out music.npz
    beatmeter embed harmony MUSIC/ --label work --out music.npz
    beatmeter embed runs/similar MUSIC/ --out mine.npz
    beatmeter embed harmony song.mp3 --level chunk --out song.npz
    Exit status: 0 all tracks are in the file, 1 some are left out (they are listed).
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.errors import ConfigError
    from beatmeter.evaluation.embeddings_parquet import require_pyarrow, write_parquet
    from beatmeter.evaluation.records import write_records
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.serving.embedding import embed_tracks, open_model
    from beatmeter.settings import METERS, DataConfig

    if out.suffix != ".npz":
        raise ConfigError(f"{out} is no name for vectors", "Name it *.npz.")
    embedder = open_model(model)
    tracks = open_dataset(data, DataConfig(path=data), METERS, labelled=False).tracks
    require_writable(out)
    if parquet is not None:
        require_pyarrow()
        require_writable(parquet)
    record, failed = embed_tracks(tracks, embedder, level, label.lower(), jobs, TERMINAL)
    write_records(out, record)
    echo(f"{len(record)} vectors of {record.vectors.shape[1]} numbers in {out}")
    if parquet is not None:
        write_parquet(parquet, record)
        echo(f"and in {parquet}")
    for name, reason in failed.items():
        echo(f"left out: {name}: {reason}")
    raise SystemExit(1 if failed else 0)


@click.command()
@click.argument("embeddings", type=PATH, metavar="E.npz")
@click.argument("query")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many neighbours.")
@click.option(
    "--rerank", type=click.Choice(["align"]), help="Order the 50 nearest by aligning their harmony."
)
@click.option("--why", is_flag=True, help="Say what is alike, and which seconds align in which key.")
@click.option(
    "--model", default="harmony", show_default=True, help="The model that made E.npz, for a query file."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def search(
    embeddings: Path, query: str, k: int, rerank: str | None, why: bool, model: str, as_json: bool
) -> None:
    """What sounds like QUERY, an audio file or an id of E.npz, among the vectors of E.npz?

    \b
    beatmeter search music.npz song.mp3
    beatmeter search music.npz song.mp3 -k 5 --rerank align --why
    """
    from beatmeter.serving.search import Searcher

    searcher = Searcher(_read(embeddings))
    asked = _query(searcher, query, model)
    hits = searcher.find(asked, k, rerank is not None)
    rows = []
    for place, hit in enumerate(hits, 1):
        row: dict[str, Any] = {"rank": place, "id": searcher.gallery.ids[hit.item], "cosine": hit.cosine}
        start, end = searcher.gallery.times[hit.item]
        if start == start:
            row |= {"from": float(start), "to": float(end)}
        if hit.aligned is not None:
            row["aligned"] = hit.aligned
        if why:
            reasons = searcher.why(asked, hit.item)
            row |= {"percentiles": reasons.percentiles, "key": reasons.key}
            row |= {"here": list(reasons.here), "there": list(reasons.there)}
        rows.append(row)
    if as_json:
        click.echo(to_json({"query": query, "hits": rows}))
        return
    width = max((len(row["id"]) for row in rows), default=0)
    for row in rows:
        line = f"{row['rank']:3}  {row['id']:{width}}  {row['cosine']:5.2f}"
        if "from" in row:
            line += f"  {_clock(row['from'])}-{_clock(row['to'])}"
        if "aligned" in row:
            line += f"  aligned {row['aligned']:5.1f}"
        click.echo(line)
        if why:
            click.echo(f"     {_because(row)}")
    if why:
        click.echo(
            "nearer than so many of the query's pairs, in percent; then what aligns: query, neighbour, key"
        )


def _because(row: dict[str, Any]) -> str:
    parts = [f"{name} {value:.0f}" for name, value in row["percentiles"].items()]
    here, there = row["here"], row["there"]
    if here[1] <= here[0]:
        return ", ".join([*parts, "nothing aligns"])
    up = (row["key"] + 6) % 12 - 6
    key = "same key" if up == 0 else f"{up:+d} semitones"
    spans = f"{_clock(here[0])}-{_clock(here[1])} is {_clock(there[0])}-{_clock(there[1])}, {key}"
    return ", ".join(parts) + "; " + spans


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _read(path: Path) -> Embeddings:
    from beatmeter.errors import DataError
    from beatmeter.evaluation.records import read_records
    from beatmeter.schema import as_embeddings

    if path.suffix != ".npz":
        raise DataError(
            f"{path} is no file of vectors", "Make one: beatmeter embed harmony MUSIC/ --out music.npz"
        )
    return as_embeddings(read_records(path))


def _query(searcher: Any, query: str, model: str) -> Embeddings:
    from beatmeter.schema import Track
    from beatmeter.serving.embedding import embed_tracks, open_model

    if query in searcher.gallery.ids or not Path(query).is_file():
        return searcher.item(query)  # type: ignore[no-any-return]
    record, _ = embed_tracks([Track(query, Path(query))], open_model(model))
    return record


@click.group()
def similarity() -> None:
    """Train and judge embeddings.

    \b
    beatmeter similarity score music.npz --factors instrument,key
    beatmeter similarity fit --out mine
    """


@similarity.command()
@click.argument("embeddings", type=PATH, metavar="E.npz")
@click.option("--data", type=click.Path(), help="The data set that E.npz was made of, for --factors.")
@click.option(
    "--factors", default="", metavar="COLUMNS", help="What the vectors should not hear: instrument,key."
)
@click.option("--rerank", type=click.Choice(["align"]), help="Order each query's 50 nearest by alignment.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def score(embeddings: Path, data: str | None, factors: str, rerank: str | None, as_json: bool) -> None:
    """Does every item of E.npz find the others of its label? (embed --label says what belongs together)

    mAP, MAP@R, hit@1, hit@10 and the mean rank of the first hit (MR1), with intervals over labels, beside
    vectors that were shuffled; hubness; and by --factors how well a likeness tells instruments or keys
    apart (.5: not).

    \b
    beatmeter embed harmony MUSIC/ --label work --out music.npz
    beatmeter similarity score music.npz --data MUSIC/ --factors instrument,key
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.columns import require_columns, text_of
    from beatmeter.errors import ConfigError
    from beatmeter.evaluation.similarity import judge
    from beatmeter.settings import METERS, DataConfig

    record = _read(embeddings)
    names = tuple(name.strip().lower() for name in factors.split(",") if name.strip())
    columns: dict[str, list[str]] = {}
    if names:
        if data is None:
            raise ConfigError("--factors are columns of a data set", "Name it with --data.")
        tracks = {t.id: t for t in open_dataset(data, DataConfig(path=data), METERS, labelled=False).tracks}
        require_columns(tuple(tracks.values()), names, "--factors")
        columns = {n: [text_of(tracks[i], n) if i in tracks else "" for i in record.ids] for n in names}
    scores = None if rerank is None else _second_look(record)
    found = judge(record, columns, scores)
    click.echo(to_json(found.to_json()) if as_json else _table(found))


def _second_look(record: Embeddings) -> Any:
    import numpy as np

    from beatmeter.serving.search import Searcher

    searcher = Searcher(record)
    scores = record.unit @ record.unit.T - 1000.0
    with TERMINAL.track("aligning", len(record), "queries") as tick:
        for i in range(len(record)):
            query = record.take([i])
            hits = searcher.find(query, 50, rerank=True)
            scores[i, [hit.item for hit in hits]] = [hit.aligned for hit in hits]
            tick(1)
    return np.asarray(scores)


def _table(found: Retrieval) -> str:
    lines = [
        f"{found.queries} queries of {found.labels} labels",
        f"{'':8}{'value':>8}  interval        shuffled",
    ]
    for name, e in found.metrics.items():
        digits = 1 if name == "MR1" else 3
        interval = f"[{e.low:.{digits}f}, {e.high:.{digits}f}]"
        lines.append(f"{name:8}{e.value:8.{digits}f}  {interval:16}{found.null[name]:8.{digits}f}")
    lines.append(f"hubness {found.hubness:8.2f}  mean cosine {found.mean_cosine:.3f}")
    lines += [f"hears {name}: area {value:.2f}" for name, value in found.factors.items()]
    return "\n".join(lines)


@similarity.command()
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder of the model.")
@click.option(
    "--works", default=390, show_default=True, help="Synthetic works to train on, four versions each."
)
@click.option("--landmarks", default=512, show_default=True, help="Synthetic pieces to align with.")
@click.option("--seed", default=7, show_default=True, help="Of works and landmarks.")
@click.option(
    "--kind",
    type=click.Choice(["harmony", "whiten"]),
    default="harmony",
    show_default=True,
    help="Landmarks of harmony, or the whitening of the embedded backbone's features.",
)
@jobs_option
def fit(out: Path, works: int, landmarks: int, seed: int, kind: str, jobs: int) -> None:
    """Train an embedding on synthetic versions of synthetic works: about five minutes of processor time.

    harmony finds a work again in another key, tempo and band; whiten hears how music sounds.

    \b
    beatmeter similarity fit --out mine --jobs 2
    beatmeter embed mine MUSIC/ --out music.npz
    """
    from beatmeter.features.landmarks import ARRAYS, Landmarks
    from beatmeter.learning.landmarks import Plan, fit_whitening
    from beatmeter.learning.landmarks import fit as train
    from beatmeter.runtime.atomic import require_writable

    require_writable(out / ARRAYS)
    plan = Plan(works=works, landmarks=landmarks, seed=seed)
    model = train(plan, jobs, TERMINAL) if kind == "harmony" else fit_whitening(plan, jobs, TERMINAL)
    model.save(out)
    best = max(model.about["held_out_map"].values())
    what = f"{len(model.pieces)} landmarks" if isinstance(model, Landmarks) else "a whitening"
    echo(f"{what} in {out}; mAP {best:.2f} on synthetic works that were held out")
