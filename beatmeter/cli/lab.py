"""beatmeter compare, calibrate, gate, ensemble, report: what works on predictions alone; only `calibrate`
hears audio, when it has a model."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from beatmeter.cli.options import TERMINAL, device_option, echo
from beatmeter.cli.systems import gather, short_names
from beatmeter.errors import ConfigError, EvaluationError
from beatmeter.runtime.artifacts import named, to_json
from beatmeter.runtime.display import count

if TYPE_CHECKING:
    from beatmeter.evaluation.report.page import Drawn
    from beatmeter.schema import ClassPredictions, Items

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def _shared(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_split = click.option("--split", help="Which split.  [default: test of a run, the only one of a file]")
_common = click.option("--common", is_flag=True, help="Use the items that all have, leave the others out.")
_json = click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
_corrections = click.option(
    "--corrections",
    type=PATH,
    metavar="FILE",
    help="Corrected labels: CSV with id, label (3 or 3,4; empty leaves out).",
)
_audio = _shared(
    click.option(
        "--audio",
        type=PATH,
        metavar="DIR",
        help="Where the audio lies, for clips to listen to.  [default: the run's own data]",
    ),
    click.option(
        "--seconds",
        type=float,
        default=10.0,
        show_default=True,
        help="Length of the excerpts inside the page; 0 leaves audio out.",
    ),
)
_seed = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of bootstrap and permutations."
)


@click.command()
@click.argument("systems", nargs=-1, required=True, metavar="RUN RUN ...")
@_split
@_common
@click.option("--all-pairs", is_flag=True, help="Test all against all, not only against the first.")
@click.option("--metric", "metrics", multiple=True, help="A metric to test; may be repeated.")
@click.option("--separate", is_flag=True, help="Keep runs apart that differ in nothing but their seed.")
@_corrections
@click.option("--changes", type=int, default=10, show_default=True, help="How many changed clips to list.")
@click.option(
    "--html", type=PATH, metavar="FILE", help="Write a page with figures and the changed clips to listen to."
)
@click.option("--figures", type=PATH, metavar="DIR", help="Write the figures as PNG and SVG.")
@_audio
@_json
@_seed
def compare(
    systems: tuple[str, ...],
    split: str | None,
    common: bool,
    all_pairs: bool,
    metrics: tuple[str, ...],
    separate: bool,
    corrections: Path | None,
    changes: int,
    html: Path | None,
    figures: Path | None,
    audio: Path | None,
    seconds: float,
    as_json: bool,
    seed: int,
) -> None:
    """Say which system is better, or that this cannot be known. The first is what the others are compared
    with.

    A RUN is a run folder or a predictions file; NAME=RUN,RUN,... is one system with several seeds. Runs that
    differ in their seed alone are taken as one system.

    \b
    beatmeter compare runs/frozen runs/lora
    beatmeter compare frozen=runs/f0,runs/f1 lora=runs/l0,runs/l1 --html comparison.html
    beatmeter compare runs/mine theirs.csv --common
    """
    from beatmeter.evaluation.comparison.compare import DEFAULT
    from beatmeter.evaluation.comparison.compare import compare as run
    from beatmeter.evaluation.report.lab_text import comparison_text

    members = gather(systems, group=not separate)
    if _of_records(members, split):
        if html is not None or figures is not None or corrections is not None:
            raise EvaluationError(
                "--html, --figures and --corrections are for scores of classes",
                "Leave them out; --json has every number.",
            )
        _compare_records(members, split, metrics, common, all_pairs, as_json, seed)
        return
    loaded = {name: [_open(path, split, corrections) for path in paths] for name, paths in members.items()}
    found = run(loaded, metrics or DEFAULT, common, all_pairs, seed=seed)
    click.echo(to_json(found.to_json()) if as_json else comparison_text(found, changes), nl=as_json)
    if html is not None:
        from beatmeter.evaluation.report.comparison_report import comparison_page
        from beatmeter.runtime.atomic import write_text

        first = next(iter(members.values()))[0]
        locate = _locate(found.systems[0].runs[0], audio, first, seconds)
        title = f"{found.systems[0].name} against {', '.join(s.name for s in found.systems[1:])}"
        write_text(html, comparison_page(found, title, locate, seconds, _command()))
        echo(f"page: {html}")
    if figures is not None:
        from beatmeter.evaluation.report.comparison_report import comparison_figures, pair_figures
        from beatmeter.evaluation.report.run_figures import write_figures

        drawn = [*comparison_figures(found), *(d for pair in found.pairs for d in pair_figures(found, pair))]
        echo(f"{count(len(write_figures(drawn, figures)), 'figure')} in {figures}")


@click.command()
@click.argument("where", type=PATH, metavar="RUN")
@click.option(
    "--split", default="val", show_default=True, help="The split to fit on; it should be validation."
)
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    help="none, temperature, platt or isotonic; auto chooses for every class.",
)
@click.option(
    "--apply",
    "targets",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Predictions to calibrate too; may be repeated.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="Where to write.  [default: calibration.json in the run, FILE.calibration.json beside a file]",
)
@click.option(
    "--sounds",
    type=click.IntRange(0),
    default=840,
    show_default=True,
    help="Sounds without meter that RUN hears, to learn when no meter is heard; 0 leaves that out.",
)
@click.option(
    "--data", type=PATH, metavar="DIR", help="Where the data set of RUN lies now.  [default: where it was]"
)
@device_option
@_json
@_seed
def calibrate(
    where: Path,
    split: str,
    kind: str,
    targets: tuple[Path, ...],
    out: Path | None,
    sounds: int,
    data: Path | None,
    device: str,
    as_json: bool,
    seed: int,
) -> None:
    """Learn from validation what the scores of RUN are worth: probabilities, when an answer is sure,
    thresholds of a second meter.

    A run or an ensemble also learns when to answer that no meter is heard, from excerpts of its validation
    music and from generated sounds: noise, tones, hum, speech, gongs, clicks and notes at random. That takes
    some minutes, and the audio of the run. A file of predictions holds no model that could hear them.

    \b
    beatmeter calibrate runs/NAME
    beatmeter calibrate val.csv --apply test.csv
    """
    from dataclasses import replace

    import numpy as np

    from beatmeter.evaluation.calibration import FEWEST, Calibration
    from beatmeter.evaluation.diagnostics import guessing_warning, performance
    from beatmeter.evaluation.predictions import open_predictions, write_predictions
    from beatmeter.evaluation.report.lab_text import calibration_text
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.serving.models import hears

    validation = open_predictions(where, split)
    _require_meter(where, validation, "calibrated")
    calibration = Calibration.fit(validation, kind, seed=seed)
    labelled = validation.take(np.flatnonzero(validation.primary >= 0))
    groups = len(set(labelled.groups))
    doubt = guessing_warning(performance(labelled)).strip()
    if doubt and groups < FEWEST:
        raise EvaluationError(
            f"{groups} groups of labelled items teach nothing here. {doubt}",
            "Use a validation split with more songs, or train longer.",
        )
    if doubt:
        echo(f"warning: {doubt}")
    out = out or (where / "calibration.json" if where.is_dir() else where.with_suffix(".calibration.json"))
    require_writable(out)
    if hears(where) and sounds:
        from beatmeter.runtime.device import choose_device
        from beatmeter.serving.presence import fit_presence

        calibration = replace(
            calibration,
            presence=fit_presence(where, validation, choose_device(device), sounds, seed, data, TERMINAL),
        )
    elif sounds:
        echo(f"note: {where} holds no model that could hear sounds without meter, so none is told from music")
    calibration.save(out)
    effects = {}
    if where.is_dir() and split != "test" and (where / "predictions" / "test.csv").exists():
        test = open_predictions(where, "test")
        effects["test"] = (test, calibration.apply(test))
    for target in targets:
        raw = open_predictions(target)
        effects[target.name] = (raw, calibration.apply(raw))
        write_predictions(target.with_suffix(".calibrated.csv"), effects[target.name][1])
        echo(f"calibrated: {target.with_suffix('.calibrated.csv')}")
    effects = {name: pair for name, pair in effects.items() if (pair[0].primary >= 0).any()}
    click.echo(
        to_json(calibration.to_json()) if as_json else calibration_text(calibration, effects), nl=as_json
    )
    echo(f"calibration: {out}")


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.option(
    "--against",
    type=PATH,
    required=True,
    metavar="RUN",
    help="What is there already: a run folder or a predictions file.",
)
@_split
@_common
@_corrections
@_json
@_seed
def gate(
    run: Path,
    against: Path,
    split: str | None,
    common: bool,
    corrections: Path | None,
    as_json: bool,
    seed: int,
) -> None:
    """Say whether RUN is worth joining an ensemble: different enough, and bringing more than it costs.

    It passes when both agree (both right or both wrong) on 65 to 80 % of the items, and its gains are more
    than 1.5 times its losses.

    \b
    beatmeter gate runs/lora --against arbiter.csv
    Exit status: 0 passed, 1 not passed.
    """
    from beatmeter.evaluation.comparison.gate import gate as measure
    from beatmeter.evaluation.report.lab_text import gate_text

    names = short_names([run, against])
    found = measure(
        _open(run, split, corrections),
        _open(against, split, corrections),
        (names[0], names[1]),
        common,
        seed=seed,
    )
    click.echo(to_json(found.to_json()) if as_json else gate_text(found), nl=as_json)
    raise SystemExit(0 if found.passed else 1)


@click.command()
@click.argument("members", nargs=-1, required=True, metavar="RUN RUN ...")
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Where to write predictions and ensemble.json."
)
@click.option(
    "--method",
    type=click.Choice(["mean", "stack"]),
    default="mean",
    show_default=True,
    help="How members are combined.",
)
@click.option(
    "--criterion",
    default="log_loss",
    show_default=True,
    help="Metric that the weights of the mean are tuned for.",
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="NAME=W",
    help="A weight by hand, instead of tuning; the others get 0.",
)
@click.option("--calibrated", is_flag=True, help="Calibrate every member by its own calibration.json first.")
@click.option("--validation", default="val", show_default=True, help="The split to tune on.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("test",),
    show_default=True,
    help="Further splits to predict; may be repeated.",
)
@_common
@_seed
def ensemble(
    members: tuple[str, ...],
    out: Path,
    method: str,
    criterion: str,
    weights: tuple[str, ...],
    calibrated: bool,
    validation: str,
    splits: tuple[str, ...],
    common: bool,
    seed: int,
) -> None:
    """Combine members into one. The first starts with all the weight, the others rise from 0 while validation
    gets better.

    Predictions of validation are made by fits on its other folds, so that they can be judged and calibrated.

    \b
    beatmeter ensemble runs/frozen runs/lora --out runs/both
    beatmeter ensemble mine.csv theirs.csv --method stack --out runs/stacked
    """
    from beatmeter.evaluation.comparison.compare import compare as judge
    from beatmeter.evaluation.comparison.ensemble import fit_mean, fit_stack
    from beatmeter.evaluation.predictions import write_predictions
    from beatmeter.evaluation.report.lab_text import comparison_text, ensemble_text
    from beatmeter.serving.models import EnsembleFolder, is_model

    paths = {name: found[0] for name, found in gather(members, group=False).items()}
    loaded = {
        split: {name: _member(path, split, calibrated) for name, path in paths.items()}
        for split in dict.fromkeys([validation, *splits])
    }
    if method == "stack":
        if weights:
            raise ConfigError("--weight belongs to --method mean", "Stacking finds its own coefficients.")
        fitted = fit_stack(loaded[validation], out.name, seed=seed, common=common)
    else:
        fitted = fit_mean(
            loaded[validation], _weights(weights), criterion, out.name, seed=seed, common=common
        )
    fitted.ensemble.save(out / "ensemble.json")
    if all(is_model(path) for path in paths.values()):
        EnsembleFolder(out).write_members(paths, calibrated)
    write_predictions(out / "predictions" / f"{validation}.csv", fitted.validation)
    click.echo(ensemble_text(fitted.ensemble))
    best, gain = fitted.best_member(), fitted.gain(seed=seed)
    click.echo(
        f"{validation}, out of fold: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] accuracy over "
        f"{best}, its best member by log loss"
    )
    for split in splits:
        if split == validation:
            continue
        combined = fitted.ensemble.combine(loaded[split], out.name, common)
        write_predictions(out / "predictions" / f"{split}.csv", combined)
        if (combined.primary >= 0).any():
            click.echo(f"\n{split}: the ensemble against {best}")
            click.echo(
                comparison_text(
                    judge({best: [loaded[split][best]], out.name: [combined]}, common=common, seed=seed), 0
                ),
                nl=False,
            )
    echo(f"ensemble: {out}")


@click.command()
@click.argument("where", type=PATH, metavar="RUN")
@_split
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="The page.  [default: report.html in the run, FILE.report.html beside a file]",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--figures", type=PATH, metavar="DIR", help="Write every figure as PNG and SVG too.")
@_corrections
@_audio
@click.option("--text", "as_text", is_flag=True, help="Print the report instead of making a page.")
@_json
@_seed
def report(
    where: Path,
    split: str | None,
    out: Path | None,
    show: bool,
    figures: Path | None,
    corrections: Path | None,
    audio: Path | None,
    seconds: float,
    as_text: bool,
    as_json: bool,
    seed: int,
) -> None:
    """Make one page that answers at a glance: how good, how sure, which errors, leakage or not, which
    thresholds.

    The page is one file without network or scripts; excerpts of the worst clips are inside it.

    \b
    beatmeter report runs/NAME --open
    beatmeter report predictions.csv --audio MUSIC/ --figures figures/
    beatmeter report predictions.csv --text
    """
    from beatmeter.evaluation.records import open_records
    from beatmeter.evaluation.report.assessment import of_meter
    from beatmeter.evaluation.report.subject import Subject

    record = open_records(where, split)
    if not of_meter(record):
        if corrections is not None:
            raise ConfigError(
                "--corrections hold labels of meters", "Correct the column that the run was trained on."
            )
        _report_column(where, record, out, show, figures, as_text, as_json, seed)
        return
    subject = Subject.read(where, split, seed=seed, report=echo)
    if corrections is not None:
        subject = subject.corrected_by(corrections, seed=seed)
    if as_text or as_json:
        from beatmeter.evaluation.report import evaluation_text

        shown = [subject.evaluation, *([subject.corrected] if subject.corrected else [])]
        if as_json:
            value = (
                {"original": shown[0].to_json(), "corrected": shown[1].to_json()}
                if len(shown) > 1
                else shown[0].to_json()
            )
            click.echo(to_json(value))
        else:
            click.echo("\n".join(evaluation_text(e) for e in shown), nl=False)
        return
    from beatmeter.evaluation.report.run_figures import run_figures
    from beatmeter.evaluation.report.run_report import run_page

    out = _page_of(where, out)
    drawn = run_figures(subject, seed)
    locate = _locate(subject.evaluation.predictions, audio, where, seconds)
    _hand_over(run_page(subject, locate, seconds, _command(), drawn), out, drawn, figures, show)


def _page_of(where: Path, out: Path | None) -> Path:
    """Where the page goes, once it is known that a file can appear there: before figures are drawn."""
    from beatmeter.runtime.atomic import require_writable

    out = out or (where / "report.html" if where.is_dir() else where.with_suffix(".report.html"))
    require_writable(out)
    return out


def _hand_over(
    page: str, out: Path, drawn: Mapping[str, Sequence[Drawn]], figures: Path | None, show: bool
) -> None:
    """Write a page and its figures, say where they are, and open the page if that is wanted."""
    from beatmeter.evaluation.report.run_figures import write_figures
    from beatmeter.runtime.atomic import write_text

    write_text(out, page)
    if figures is not None:
        written = write_figures([d for group in drawn.values() for d in group], figures)
        echo(f"{count(len(written), 'figure')} in {figures}")
    click.echo(str(out))
    if show:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())


def _report_column(
    where: Path,
    record: Items,
    out: Path | None,
    show: bool,
    figures: Path | None,
    as_text: bool,
    as_json: bool,
    seed: int,
) -> None:
    """The report of a record that is none of meter."""
    from beatmeter.evaluation.report import assessment_text
    from beatmeter.evaluation.report.assessment_page import (
        assess_file,
        assessment_figures,
        assessment_page,
        history_of,
    )

    found = assess_file(where, record, seed)
    if as_text or as_json:
        click.echo(to_json(found.to_json()) if as_json else assessment_text(found), nl=as_json)
        return
    out = _page_of(where, out)
    drawn = assessment_figures(found, history_of(where))
    _hand_over(assessment_page(where, found, _command(), drawn), out, drawn, figures, show)


def _of_records(members: Mapping[str, Sequence[Path]], split: str | None) -> bool:
    """Whether the first system's record is of another kind than scores of classes."""
    from beatmeter.evaluation.records import open_records
    from beatmeter.schema import ClassPredictions

    return not isinstance(open_records(next(iter(members.values()))[0], split), ClassPredictions)


def _compare_records(
    members: Mapping[str, Sequence[Path]],
    split: str | None,
    metrics: tuple[str, ...],
    common: bool,
    all_pairs: bool,
    as_json: bool,
    seed: int,
) -> None:
    from beatmeter.evaluation.comparison.records import compare_records
    from beatmeter.evaluation.records import open_records
    from beatmeter.evaluation.report.lab_text import records_text

    loaded = {name: [open_records(path, split) for path in paths] for name, paths in members.items()}
    found = compare_records(loaded, metrics, common, all_pairs, seed=seed)
    click.echo(to_json(found.to_json()) if as_json else records_text(found), nl=as_json)


def _open(path: Path, split: str | None, corrections: Path | None) -> ClassPredictions:
    from beatmeter.evaluation.corrections import Corrections
    from beatmeter.evaluation.predictions import open_predictions

    predictions = open_predictions(path, split)
    return Corrections.read(corrections).apply(predictions)[0] if corrections else predictions


def _require_meter(where: Path, predictions: ClassPredictions, what: str) -> None:
    """Raise EvaluationError for scores of a task over a column."""
    from beatmeter.evaluation.report.assessment import of_meter

    if not of_meter(predictions):
        raise EvaluationError(
            f"{where} answers a column ({predictions.meta.get('task', 'multiclass')}), and only scores of "
            f"meter are {what}"
        )


def _member(path: Path, split: str, calibrated: bool) -> ClassPredictions:
    """A member's predictions of one split, through its calibration when asked."""
    from beatmeter.evaluation.calibration import Calibration
    from beatmeter.evaluation.predictions import open_predictions

    predictions = open_predictions(path, split)
    _require_meter(path, predictions, "joined")
    if not calibrated:
        return predictions
    file = path / "calibration.json" if path.is_dir() else path.with_suffix(".calibration.json")
    calibration = Calibration.load(file)
    with named(file, EvaluationError):
        return calibration.apply(predictions)


def _weights(texts: Sequence[str]) -> dict[str, float] | None:
    if not texts:
        return None
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise EvaluationError(f"--weight {text!r} is not of the form NAME=NUMBER") from None
    return found


def _locate(predictions: ClassPredictions, audio: Path | None, where: Path, seconds: float) -> Any:
    """How a page finds audio; None when it is to hold none."""
    from beatmeter.evaluation.report.players import locator

    if seconds <= 0:
        return None
    return locator(predictions, audio, where if (where / "config.toml").exists() else None, echo)


def _command() -> str:
    return shlex.join(["beatmeter", *sys.argv[1:]])
