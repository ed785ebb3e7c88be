"""beatmeter data annotations audit, correct: beats to review, and annotations with the decisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.dataset_options import corrections_option
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.errors import DataError, shown
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.datasets import Dataset


@click.command(short_help="beats that are probably wrong, shifted or missing")
@click.argument("dataset", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the page and the list; or a CSV file, for the list alone.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=100, show_default=True, help="Beats to list at most."
)
@click.option(
    "--show-guess",
    is_flag=True,
    help="Show on the page what the model suggests. By default it is shown place by place, when asked for.",
)
@click.option("--sections", default="lab", show_default=True, help="Folder of sections beside the audio.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the model.")
@corrections_option
def audit(
    dataset: str,
    out: Path,
    top: int,
    show_guess: bool,
    sections: str,
    seed: int,
    corrections: tuple[str, ...],
) -> None:
    """Rank the beats of DATASET that are probably wrong, shifted or missing, and write a review list.

    A light model of the sound around beats judges every track by the tracks of other groups, and confident
    learning (cleanlab) ranks labels that it doubts and beats that the labels lack. The list is a page that
    plays every place, and a CSV file to fill in: keep, drop, suggested, or the time of the beat. Nothing is
    changed before you give it to --corrections.

    \b
    beatmeter data annotations audit MUSIC/ --out review/
    beatmeter data annotations audit MUSIC/ --out review.csv --top 500
    beatmeter train --frozen MUSIC/ --recipe embedded-beats --corrections review/review.csv

    Exit status: 0 the list is written, 1 too, without tracks whose audio cannot be used (they are named), 2
    it could not be made.
    """
    from beatmeter.datasets.annotations import Folders, find_annotations
    from beatmeter.experiments.audit.beat_review import BeatReview, places, require_free, to_csv, write_review
    from beatmeter.experiments.audit.events import out_of_fold, rank_events, without_echoes
    from beatmeter.experiments.audit.suspects import require_cleanlab
    from beatmeter.runtime.atomic import write_text

    require_cleanlab()
    require_free(out)
    opened = _open(dataset, corrections)
    found = find_annotations(opened.tracks, Folders(sections=sections))
    grids = {id: a.grid for id, a in found.items() if a.grid is not None and len(a.grid)}
    tracks = [track for track in opened.tracks if track.id in grids]
    if not tracks:
        raise DataError(
            f"no track of {shown(dataset)} has annotated beats",
            "See docs/annotations.md: where they are looked for.",
        )
    curves = out_of_fold(tracks, grids, seed, TERMINAL, lambda error: echo(f"left out: {error}"))
    status = 1 if len(curves) < len(tracks) else 0
    tracks = [track for track in tracks if track.id in curves]
    ranked = rank_events(curves, grids)
    doubts = without_echoes(ranked)[:top]
    beats = sum(len(grids[track.id]) for track in tracks)
    listed = f"the worst {len(doubts)} of {beats} beats and {len(ranked) - beats} gaps"
    if out.suffix.lower() == ".csv":
        write_text(out, to_csv(doubts))
        click.echo(f"{out}: {listed} in {count(len(tracks), 'track')}")
        raise SystemExit(status)
    review = BeatReview(
        f"Beats of {opened.name}", doubts, places(doubts, tracks, grids, curves, progress=TERMINAL)
    )
    write_review(review, out, show_guess)
    click.echo(f"{listed} in {count(len(tracks), 'track')}")
    click.echo(
        f"{out / 'review.html'}: listen and decide{'' if show_guess else ' (without the suggestions)'}; or "
        f"fill in {out / 'review.csv'}"
    )
    raise SystemExit(status)


@click.command(short_help="annotations with the beats corrected")
@click.argument("dataset", type=click.Path())
@corrections_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the new files.")
def correct(dataset: str, corrections: tuple[str, ...], out: Path) -> None:
    """Write the annotations of DATASET with the beats corrected to the folder --out, as beatmeter's own JSON.

    All annotated tracks are written; flags say whose beats were corrected. No file is ever written over.
    Training and evaluation need no such files: they take --corrections.

    \b
    beatmeter data annotations correct MUSIC/ --corrections review/review.csv --out corrected/

    Exit status: 0 the files are written, 1 some corrected beats have no sure place in the bar (they are
    listed), 2 nothing is written.
    """
    from beatmeter.datasets.beat_corrections import write_corrected
    from beatmeter.datasets.corrections import told
    from beatmeter.datasets.decisions import KINDS

    opened = _open(dataset, corrections)
    done = [d for d in opened.corrections if "beats" in d]
    if not any(d[kind] for d in done for kind in KINDS):
        raise DataError(
            "no beat is corrected: give a review in which beats are decided on with --corrections",
            "`beatmeter data annotations audit` makes one.",
        )
    folder = Path(dataset)
    written = write_corrected(opened, folder if folder.is_dir() else folder.parent, out)
    doubtful = {id: flags for d in done for id, flags in d["doubtful"].items()}
    for id, flags in doubtful.items():
        echo(f"doubtful: {id}: {', '.join(flags)}")
    for d in done:
        click.echo(f"corrected by {d['file']}: {told(d)}")
    tracks = {id for d in done for id in d["beats"]}
    click.echo(f"{out}: {count(written, 'annotation')}, of which {len(tracks)} corrected")
    raise SystemExit(1 if doubtful else 0)


def _open(dataset: str, corrections: tuple[str, ...]) -> Dataset:
    """The dataset, whether its tracks have labels or not."""
    from beatmeter.datasets import open_dataset
    from beatmeter.settings import METERS, DataConfig

    return open_dataset(dataset, DataConfig(corrections=corrections), METERS, labelled=False)
