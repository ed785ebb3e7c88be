"""beatmeter data audit"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.dataset_options import (
    class_names,
    classes_option,
    corrections_option,
    extra_option,
    jobs_option,
    tables_option,
)
from beatmeter.cli.options import TERMINAL, configure, device_option, echo, recipes
from beatmeter.errors import StoreError
from beatmeter.settings import DataConfig

if TYPE_CHECKING:
    from beatmeter.experiments.audit import Audit
    from beatmeter.schema import Track
    from beatmeter.store import Snapshot, Store


@click.command(short_help="labels that are probably wrong, clips that are twice")
@click.argument("dataset", type=click.Path())
@click.option(
    "--features",
    required=True,
    metavar="STORE|RECIPE",
    help=f"A feature store, or a recipe to extract with: {', '.join(recipes())}.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the review list.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Suspicious labels to list at most.",
)
@click.option(
    "--controls",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Labels nothing is said against, to mix in at random.",
)
@click.option(
    "--show-guess",
    is_flag=True,
    help="Show what the model thinks. By default a reviewer listens without knowing.",
)
@click.option(
    "--cache",
    default="cache",
    show_default=True,
    type=click.Path(),
    help="Folder of feature stores, for a recipe.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of folds and controls."
)
@jobs_option
@classes_option
@tables_option
@extra_option
@corrections_option
@device_option
def audit(
    dataset: str,
    features: str,
    out: Path,
    top: int,
    controls: int,
    show_guess: bool,
    cache: str,
    seed: int,
    jobs: int,
    classes: str,
    tables: str | None,
    extra: tuple[str, ...],
    corrections: tuple[str, ...],
    device: str,
) -> None:
    """Rank the labels of DATASET that are probably wrong, find clips that are in it twice, and write a review
    list.

    A light head predicts every song from the others, and confident learning (cleanlab) ranks the labels that
    it doubts. The list is a page with players and a CSV file to fill in: a new label, keep, or drop. Nothing
    is changed before you give it to --corrections.

    \b
    beatmeter data audit METER2800/ --features spectral-lag --out review/
    beatmeter data audit METER2800/ --features cache/mert-v1-95m-0123456789abcdef --out review/ --controls 20
    beatmeter train --frozen METER2800/ --recipe spectral-lag --corrections review/review.csv

    Exit status: 0 nothing to review, 1 there is a list, 2 the audit could not be made.
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.errors import DataError, shown
    from beatmeter.experiments.audit import audit as examine
    from beatmeter.experiments.audit import write_audit
    from beatmeter.experiments.audit.suspects import require_cleanlab

    require_cleanlab()
    if (out / "review.csv").exists():
        raise DataError(
            f"{shown(out)} holds a review already", "Name another folder with --out, or move it away."
        )
    names = class_names(classes)
    config = DataConfig(path=dataset, extra=extra, corrections=corrections, classes=int(tables or 0))
    opened = open_dataset(Path(dataset), config, names, labelled=False)
    snapshot, keys = _features(features, cache, opened.tracks, jobs, device)
    found = examine(opened, names, snapshot, keys, seed, TERMINAL)
    review = found.review(top, controls, show_guess)
    write_audit(found, review, out)
    _show(found, out, top, show_guess)
    raise SystemExit(1 if review.items else 0)


def _features(
    where: str, cache: str, tracks: tuple[Track, ...], jobs: int, device: str
) -> tuple[Snapshot, dict[str, str]]:
    """A snapshot that holds the tracks, and their track keys by id."""
    from beatmeter.datasets.splits import audio_keys
    from beatmeter.store import store_folders

    if where not in recipes() and store_folders(where):
        store = _store(where)
        return store.snapshot(), audio_keys(tracks, store.path.parent, jobs)[0]
    from beatmeter.features.service import FeatureService
    from beatmeter.runtime.device import choose_device

    config = configure((where,), (), features={"cache": cache})
    service = FeatureService(config.features, choose_device(device), jobs)
    echo(service.describe())
    store, found, _ = service.ensure(tracks, report=echo, progress=TERMINAL)
    return store.snapshot(), dict(found)


def _store(where: str) -> Store:
    from beatmeter.store import Store, store_folders

    folders = store_folders(where)
    if len(folders) > 1:
        raise StoreError(
            f"{where} holds {len(folders)} feature stores: {', '.join(f.name for f in folders[:6])}",
            f"Name one, for instance {folders[0]}.",
        )
    return Store.open(folders[0])


def _show(found: Audit, out: Path, top: int, show_guess: bool) -> None:
    s, about = found.suspects, found.summary()
    left = f", {about['left out']} left out" if about["left out"] else ""
    click.echo(f"{found.dataset.name}: {about['labelled']} labels of {about['tracks']} tracks audited{left}")
    click.echo(
        f"head: {s.accuracy} right out of fold, {s.majority:.3f} by naming the most frequent class ({s.view} "
        "features)"
    )
    if found.weak:
        echo(
            "warning: these features hardly know the labels, so what is ranked first means little; try "
            "features with lag pooling"
        )
    if s.unlearned:
        echo(f"note: too few groups to judge the classes {', '.join(s.unlearned)}")
    flagged = int(s.flagged.sum())
    click.echo(f"labels: {flagged} suspicious" + (f", the worst {top} are listed" if flagged > top else ""))
    told = {
        split: sum(t.split == split for t, bad in zip(found.labelled, s.flagged, strict=True) if bad)
        for split in ("train", "val", "test")
    }
    if any(told.values()):
        click.echo(f"        {', '.join(f'{n} in {split}' for split, n in told.items() if n)}")
    if told["test"]:
        echo(
            "note: test labels that are corrected where a model errs favour that model: report original and "
            "corrected labels side by side"
        )
    if not found.limits:
        echo(f"note: {about['tracks']} tracks are too few to say what sounds alike")
    click.echo(
        f"copies: {about['copies']['pairs']} pairs of clips sound alike, {about['copies']['across splits']} "
        "of them across splits"
    )
    click.echo(
        f"{out / 'review.html'}: listen and decide{'' if show_guess else ' (without the guesses)'}; or fill "
        f"in {out / 'review.csv'}"
    )
