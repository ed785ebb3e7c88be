"""beatmeter map"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import echo

PATH = click.Path(path_type=Path)


@click.command("map")
@click.argument("embeddings", type=PATH, metavar="WHERE")
@click.option(
    "--out", required=True, type=PATH, metavar="FILE", help="A drawing (.svg, .png) or coordinates (.csv)."
)
@click.option("--data", type=click.Path(), help="The data set that WHERE was made of, for --label.")
@click.option(
    "--label",
    default="",
    metavar="COLUMN",
    help="Join tracks of one value of this column.  [default: what embed --label wrote]",
)
@click.option(
    "--by",
    type=click.Choice(["axes", "umap"]),
    default="axes",
    show_default=True,
    help="The first two principal axes, or UMAP, which keeps neighbours.",
)
@click.option("--mark", default="", metavar="VALUE", help="Draw the tracks of this value in red.")
def draw_map(embeddings: Path, out: Path, data: str | None, label: str, by: str, mark: str) -> None:
    """Draw a collection: WHERE is a file of `embed`, or an index.

    Tracks that lie near each other are alike in what the vectors hear, as far as two axes can show; how much
    of the variance they show stands on the axes. UMAP keeps who is near whom; its distances between groups
    say nothing.

    \b
    beatmeter embed harmony MUSIC/ --label work --out music.npz
    beatmeter map music.npz --out map.svg
    beatmeter map music.npz --out map.svg --by umap
    beatmeter map music.npz --out map.svg --data MUSIC/ --label composer --mark Schubert
    """
    import csv
    import io

    from beatmeter.cli.similarity_score import columns_of
    from beatmeter.errors import ConfigError, DataError
    from beatmeter.evaluation.figures.collection import collection_map, neighbours_kept, principal_axes
    from beatmeter.evaluation.figures.style import to_png, to_svg
    from beatmeter.runtime.atomic import require_writable, write_bytes
    from beatmeter.serving.gallery import open_gallery

    kind = out.suffix.lower()
    if kind not in (".svg", ".png", ".csv"):
        raise ConfigError(f"{out} is no name for a map", "Name it *.svg, *.png or *.csv.")
    gallery = open_gallery(embeddings)
    if len(gallery) < 3:
        raise DataError(f"{len(gallery)} vectors make no map", "Embed three tracks or more.")
    require_writable(out)
    record = gallery.take(gallery.some())
    name = label.strip().lower()
    labels = columns_of(record, data, [name], "--label")[name] if name else list(record.labels)
    if mark and mark not in labels:
        raise DataError(
            f"no track has the label {mark!r}", f"There are: {', '.join(sorted(set(labels))[:5])}."
        )
    if by == "umap":
        points, shares = neighbours_kept(record.unit), None
    else:
        points, shares = principal_axes(record.unit)
    if kind == ".csv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["id", "label", "x", "y"])
        rows.writerows(
            [i, of, f"{x:.6f}", f"{y:.6f}"] for i, of, (x, y) in zip(record.ids, labels, points, strict=True)
        )
        drawn = text.getvalue().encode("utf-8", "surrogateescape")
    else:
        figure = collection_map(points, shares, labels, mark, record.ids)
        drawn = to_png(figure) if kind == ".png" else to_svg(figure, "map").encode("utf-8")
    write_bytes(out, drawn)
    part = f"{len(record)} of {len(gallery)}" if len(record) < len(gallery) else f"{len(record)}"
    held = "" if shares is None else f"; the two axes hold {100 * shares.sum():.0f} % of their variance"
    echo(f"{part} vectors in {out}{held}")
