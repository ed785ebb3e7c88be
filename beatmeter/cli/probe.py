"""beatmeter probe"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.dataset_options import jobs_option
from beatmeter.cli.options import TERMINAL, echo
from beatmeter.errors import ConfigError, DataError

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--features", required=True, type=PATH, metavar="STORE", help="A feature store that `extract` filled."
)
@click.option(
    "--targets",
    "wanted",
    required=True,
    metavar="TABLE,NAME",
    help="Tables of targets (.csv, .parquet) and columns of DATASET.",
)
@click.option(
    "--group",
    "groups",
    default="",
    metavar="NAME,NAME",
    help="Columns whose values never cross folds: work, artist.",
)
@click.option("--pooling", help="Which pooling of the store.  [default: its first]")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="NAME=STORE",
    help="A further store to beat, such as untrained=...; may be repeated.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="How often folds are drawn."
)
@click.option(
    "--out",
    type=PATH,
    default="runs/probe",
    show_default=True,
    help="Folder for table, page and predictions.",
)
@jobs_option
def probe(
    dataset: str,
    features: Path,
    wanted: str,
    groups: str,
    pooling: str | None,
    controls: tuple[str, ...],
    seeds: int,
    out: Path,
    jobs: int,
) -> None:
    """Tell what each layer of a feature store knows: ridge regression of numbers, shrinkage LDA of classes.

    Every value is out of fold with whole groups, beside mel statistics, shuffled labels and null columns. The
    best layer is named together with all layers that cannot be told from it.

    \b
    beatmeter probe MUSIC/ --features cache/STORE --targets targets.csv,composer --group work
    beatmeter probe MUSIC/ --features cache/mert --targets key --control untrained=cache/untrained
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.columns import grouped_by, with_targets
    from beatmeter.datasets.splits import audio_keys
    from beatmeter.experiments.probes import fused, probe_text, write_probe
    from beatmeter.experiments.probes import probe as examine
    from beatmeter.experiments.probes.reading import MEL, layers_of, mel_of, subject_of, units_of
    from beatmeter.settings import DataConfig, TaskConfig
    from beatmeter.store import Store

    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    tables = [
        Path(part) for part in parts if Path(part).suffix.lower() in (".csv", ".parquet", ".tsv", ".tab")
    ]
    columns = [part.lower() for part in parts if Path(part) not in tables]
    opened = open_dataset(Path(dataset), DataConfig(path=dataset), TaskConfig().meters, labelled=False)
    units: dict[str, str] = {}
    for table in tables:
        opened = with_targets(opened, table)
        measured = units_of(table)
        if not measured and not columns:
            raise DataError(
                f"beside {table} no .meta.json says which columns are targets",
                f"Name them: --targets {table},NAME",
            )
        units |= measured
    tracks = list(opened.tracks)
    if names := [name.strip().lower() for name in groups.split(",") if name.strip()]:
        tracks = grouped_by(tracks, names, "--group")
    store = Store.open(features)
    stores = {}
    for text in controls:
        name, _, where = text.partition("=")
        if not name or not where:
            raise ConfigError(f"--control {text!r} names no store", "Write --control NAME=STORE.")
        stores[name] = Store.open(Path(where)).snapshot()
    snapshot = store.snapshot()
    keys, unreadable = audio_keys(tracks, features.parent, jobs)
    known = [
        t for t in tracks if t.id in keys and all(keys[t.id] in s.keys for s in (snapshot, *stores.values()))
    ]
    if not known:
        raise DataError(
            f"none of the {len(tracks)} tracks of {opened.name} has features in {features}",
            "Extract them first.",
        )
    if left := len(tracks) - len(known):
        unread = f", {len(unreadable)} of them unreadable" if unreadable else ""
        echo(f"left out: {left} tracks without features{unread}")
    ids, of = [t.id for t in known], [keys[t.id] for t in known]
    subject = subject_of(known, list(dict.fromkeys([*units, *columns])), units)
    layers = layers_of(snapshot, of, pooling)
    beaten = {}
    for table in tables:
        mel = mel_of(table, ids)
        if mel is not None:
            beaten[MEL] = mel
    for name, other in stores.items():
        beaten[name] = fused(layers_of(other, of, pooling))
    found = examine(subject, layers, beaten, seeds, TERMINAL, jobs)
    write_probe(found, out, f"Probes of {opened.name}")
    click.echo(probe_text(found), nl=False)
    echo(f"look: {out / 'probe.html'}")
