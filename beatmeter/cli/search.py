"""beatmeter search"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beatmeter.cli.options import echo
from beatmeter.runtime.artifacts import to_json

if TYPE_CHECKING:
    from beatmeter.schema import Embeddings
    from beatmeter.serving.search import Searcher

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("embeddings", type=PATH, metavar="WHERE")
@click.argument("query")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many neighbours.")
@click.option(
    "--rerank", type=click.Choice(["align"]), help="Order the 50 nearest by aligning their harmony."
)
@click.option("--why", is_flag=True, help="Say what is alike, and which seconds align in which key.")
@click.option("--exact", is_flag=True, help="Read all rows of an index that has inverted lists.")
@click.option(
    "--model", default="harmony", show_default=True, help="The model that made WHERE, for a query file."
)
@click.option(
    "--html", type=PATH, metavar="PAGE", help="The same with --why on a page; players with --audio."
)
@click.option("--audio", type=PATH, metavar="DIR", help="Where the audio of WHERE lies, for the page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def search(
    embeddings: Path,
    query: str,
    k: int,
    rerank: str | None,
    why: bool,
    exact: bool,
    model: str,
    html: Path | None,
    audio: Path | None,
    as_json: bool,
) -> None:
    """What sounds like QUERY, an audio file or an id, among the vectors of WHERE: a file of `embed`, or an
    index?

    \b
    beatmeter search music.npz song.mp3
    beatmeter search music.npz song.mp3 -k 5 --rerank align --why
    beatmeter search vectors/ song.mp3 --html page.html --audio MUSIC/
    """
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.serving.gallery import open_gallery
    from beatmeter.serving.search import Searcher

    if html is not None:
        require_writable(html)
    searcher = Searcher(open_gallery(embeddings, exact))
    asked = _query(searcher, query, model)
    rows = _rows(searcher, asked, k, rerank is not None, why or html is not None)
    if html is not None:
        _page(html, query, asked, rows, audio)
    if as_json:
        click.echo(to_json({"query": query, "hits": rows}))
        return
    for line in _text(rows, why):
        click.echo(line)
    if html is not None:
        echo(f"look: {html}")


def _rows(searcher: Searcher, asked: Embeddings, k: int, rerank: bool, why: bool) -> list[dict[str, Any]]:
    """One object a neighbour, as JSON has it."""
    hits = searcher.find(asked, k, rerank)
    found = searcher.gallery.take([hit.item for hit in hits])
    rows = []
    for place, (hit, name, (start, end)) in enumerate(
        zip(hits, found.ids, found.times.tolist(), strict=True), 1
    ):
        row: dict[str, Any] = {"rank": place, "id": name, "cosine": hit.cosine}
        if start == start:
            row |= {"from": start, "to": end}
        if hit.aligned is not None:
            row["aligned"] = hit.aligned
        if why:
            reasons = searcher.why(asked, hit.item)
            row |= {"percentiles": reasons.percentiles, "key": reasons.key}
            row |= {"here": list(reasons.here), "there": list(reasons.there)}
        rows.append(row)
    return rows


def _text(rows: Sequence[Mapping[str, Any]], why: bool) -> list[str]:
    width = max((len(row["id"]) for row in rows), default=0)
    lines = []
    for row in rows:
        line = f"{row['rank']:3}  {row['id']:{width}}  {row['cosine']:5.2f}"
        if "from" in row:
            line += f"  {_clock(row['from'])}-{_clock(row['to'])}"
        if "aligned" in row:
            line += f"  aligned {row['aligned']:5.1f}"
        lines.append(line)
        if why:
            lines.append(f"     {_because(row)}")
    if why:
        lines.append(
            "nearer than so many of the query's pairs, in percent; then what aligns: query, neighbour, key"
        )
    return lines


def _because(row: Mapping[str, Any]) -> str:
    parts = [f"{name} {value:.0f}" for name, value in row["percentiles"].items()]
    return ", ".join(parts) + "; " + _aligns(row)


def _aligns(row: Mapping[str, Any]) -> str:
    here, there = row["here"], row["there"]
    if here[1] <= here[0]:
        return "nothing aligns"
    up = (row["key"] + 6) % 12 - 6
    key = "same key" if up == 0 else f"{up:+d} semitones"
    return f"{_clock(here[0])}-{_clock(here[1])} is {_clock(there[0])}-{_clock(there[1])}, {key}"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _query(searcher: Searcher, query: str, model: str) -> Embeddings:
    from beatmeter.schema import Track
    from beatmeter.serving.embedding import embed_tracks, open_model

    if len(searcher.gallery.rows_of(query)) or not Path(query).is_file():
        return searcher.item(query)
    record, _ = embed_tracks([Track(query, Path(query))], open_model(model))
    return record


def _page(
    html: Path, query: str, asked: Embeddings, rows: Sequence[Mapping[str, Any]], audio: Path | None
) -> None:
    """Query and neighbours with the seconds that align, to listen to."""
    from beatmeter.datasets.files import AudioFolder
    from beatmeter.errors import DataError
    from beatmeter.evaluation.report.page import page
    from beatmeter.evaluation.report.players import Clip, sounding
    from beatmeter.runtime import atomic

    if audio is not None and not audio.is_dir():
        raise DataError(f"there is no audio folder {audio}", "Name the folder that was embedded.")
    folder = None if audio is None else AudioFolder(audio)

    def locate(name: str) -> Path:
        if folder is None or (name == query and Path(query).is_file()):
            return Path(query)
        return folder.find(name, anywhere=True)

    own = rows[0]["here"][0] if rows else None
    clips = [Clip(query, "what was asked for, where the first neighbour aligns", {}, (), "", own)]
    clips += [
        Clip(
            row["id"],
            f"{_aligns(row)}; cosine {row['cosine']:.2f}",
            {name: value / 100 for name, value in row["percentiles"].items()},
            (),
            "harmony",
            row["there"][0],
        )
        for row in rows
    ]
    known = sounding(clips, locate if folder is not None else None)
    lead = f"The {len(rows)} nearest. Bars: the share of the query's pairs that are less alike."
    try:
        atomic.write_text(
            html, page("neighbours.html", f"What sounds like {Path(query).stem}?", lead, clips=known)
        )
    except OSError as error:
        raise DataError(f"cannot write {html}: {error.strerror or error}") from None
