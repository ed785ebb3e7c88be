"""beatmeter index add | remove | build | info"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import TERMINAL, echo
from beatmeter.runtime.artifacts import to_json

PATH = click.Path(path_type=Path)


@click.group()
def index() -> None:
    """An index on disk for collections that are too large for one file of vectors.

    \b
    beatmeter index add vectors/ music.npz          makes it, or adds what is new
    beatmeter search vectors/ song.mp3
    beatmeter index build vectors/                  inverted lists, for some hundred thousand vectors and more
    """


@index.command(short_help="add files of `embed`; makes the index where there is none")
@click.argument("folder", type=PATH, metavar="DIR")
@click.argument("embeddings", type=PATH, nargs=-1, required=True, metavar="E.npz...")
def add(folder: Path, embeddings: tuple[Path, ...]) -> None:
    """Add files of `embed` to the index in DIR, which is made where there is none.

    Adding twice is safe: what is there already counts for nothing. A process that is killed leaves the index
    of before or after.

    \b
    beatmeter embed harmony NEW/ --out new.npz
    beatmeter index add vectors/ new.npz
    """
    from beatmeter.serving.gallery import fill, read_embeddings

    for path in embeddings:
        index, new = fill(folder, read_embeddings(path))
        echo(f"{new} new vectors of {path}; {folder} has {len(index)}")


@index.command(short_help="take tracks out")
@click.argument("folder", type=PATH, metavar="DIR")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def remove(folder: Path, ids: tuple[str, ...]) -> None:
    """Take tracks out of the index in DIR, with all of their parts.

    Exit status: 0 all were there, 1 some were not (they are listed).

    \b
    beatmeter index remove vectors/ "song one" "song two"
    """
    from beatmeter.serving.index import Index

    index = Index.open(folder, check=False)
    missing = [name for name in ids if name not in index]
    gone = index.remove(ids)
    echo(f"{gone} vectors removed; {folder} has {len(index)}")
    for name in missing:
        echo(f"not there: {name}")
    raise SystemExit(1 if missing else 0)


@index.command(short_help="inverted lists: a search reads the nearest ones only")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--recall", type=click.FloatRange(0.5, 1.0), default=0.95, show_default=True)
@click.option(
    "-k", default=10, show_default=True, type=click.IntRange(1, 1000), help="Of how many neighbours."
)
def build(folder: Path, recall: float, k: int) -> None:
    """Lay the vectors of DIR in inverted lists, so that a search reads the nearest lists only.

    How many lists are read is chosen for the recall that you ask for; the recall that was measured on other
    vectors of the index is printed and kept. What is added later is read whole until you build again. Below
    some hundred thousand vectors the exact search is as fast.

    \b
    beatmeter index build vectors/ --recall 0.95
    """
    from beatmeter.serving.index import Index

    about = Index.open(folder).build_cells(recall, k, progress=TERMINAL)
    echo(
        f"recall@{about['k']} {about['recall']:.3f} over {about['rows']} vectors,"
        f" {about['probes']} lists read for a query"
    )


@index.command(short_help="how many vectors, by which model; checks every byte")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def info(folder: Path, as_json: bool) -> None:
    """How many vectors DIR holds, by which model, and what its inverted lists find; every byte is checked.

    \b
    beatmeter index info vectors/
    """
    from beatmeter.serving.index import Index

    index = Index.open(folder)
    cells, about = index.cells, index.meta.get("about", {})
    model = str(about.get("kind", "unknown"))
    said = {"vectors": len(index), "dim": index.dim, "model": model, "digest": index.meta.get("model", "")}
    if as_json:
        click.echo(to_json({**said, "lists": dict(cells) if cells else None}))
        return
    click.echo(f"{len(index)} vectors of {index.dim} numbers by {model}; all checksums are right")
    if cells is None:
        click.echo("search is exact")
        return
    later = len(index) - cells["rows"]
    after = f"; {later} vectors more than then" if later > 0 else ""
    click.echo(
        f"search reads {cells['probes']} inverted lists: recall@{cells['k']} {cells['recall']:.3f},"
        f" measured over {cells['rows']} vectors{after}"
    )
