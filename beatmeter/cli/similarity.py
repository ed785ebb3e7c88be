"""beatmeter embed, similarity fit | score"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from beatmeter.cli.dataset_options import jobs_option
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.cli.similarity_score import score

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


@click.group()
def similarity() -> None:
    """Train and judge embeddings.

    \b
    beatmeter similarity score music.npz --factors instrument,key
    beatmeter similarity fit --out mine
    """


@similarity.command(short_help="train an embedding on synthetic works: five minutes")
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


similarity.add_command(score)
