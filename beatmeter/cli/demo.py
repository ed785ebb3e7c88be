"""beatmeter demo"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import TERMINAL, columns, configure, device_option, echo
from beatmeter.runtime.cores import usable_cores

if TYPE_CHECKING:
    from beatmeter.experiments.demo import Heard, Learned
    from beatmeter.settings import RunConfig

STATES = 5  # the layer that the trained one goes on from: one pass over the music serves both runs
STILL = {"shift": 0.0, "noise": 0.0, "gain": 0.0}  # so that what is frozen is computed once
RUNS: dict[str, tuple[str, str, dict[str, dict[str, float]]]] = {
    # recipe, regime, what so few pieces need, and how much adapts: the last layer does as well as all
    "frozen": ("embedded-lag", "frozen", {"training": {"accumulation": 1, "head_lr": 5e-4}}),
    "LoRA": (
        "embedded-lora",
        "streamed",
        {"training": {"accumulation": 1}, "adapter": {"lora_layers": 1}, "augment": STILL},
    ),
}
SENTENCES = {
    "at random": "names one of the six meters by the throw of a die",
    "as it ships": "has learned from music in the open alone",
    "frozen": "its last part, the head, learned from {train} pieces behind the wall",
    "LoRA": "then the end of the part before it, which turns sound into features, learned too",
}


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs/demo",
    show_default=True,
    help="Where music, features and runs go.",
)
@click.option(
    "--clips",
    type=click.IntRange(min=18),
    default=180,
    show_default=True,
    help="Pieces of the second part, the six meters in turn.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that synthesise music.  [default: one for each core]",
)
@click.option("--listen-only", is_flag=True, help="Stop after the first part, which takes seconds.")
@device_option
def demo(out: Path, clips: int, jobs: int | None, listen_only: bool, device: str) -> None:
    """See in a few minutes what beatmeter does, offline: hear where a piece changes its meter, then learn to
    hear music through a wall.

    \b
    beatmeter demo
    beatmeter demo --listen-only
    beatmeter demo --clips 600 --out runs/larger-demo
    """
    from beatmeter.experiments import demo as experiment
    from beatmeter.runtime.atomic import require_writable
    from beatmeter.runtime.device import choose_device

    require_writable(out / "change.flac")
    place, last = choose_device(device), None
    _say("beatmeter hears how many beats a bar of music has, and where that changes.", "")
    click.echo("\n1  It listens\n")
    _say("A minute of music, synthesised here: bars of 4, and from 0:30 on bars of 7.")
    _show_heard(experiment.listen(out, place))
    if not listen_only:
        click.echo("\n2  It learns\n")
        _say(
            "The neighbours have a party, and the wall lets through the bass alone. "
            f"{clips} pieces heard like that are synthesised. Models learn from half of them; the "
            "others choose when to stop, and test."
        )
        click.echo("")
        data = experiment.make_music(out, clips, experiment.SECONDS, jobs or usable_cores(), TERMINAL)
        learned = experiment.learn(out, data, settings_of(out, data), place, echo, TERMINAL)
        show_learned(learned)
        last = learned.rows[-1].folder
    click.echo("\nNext\n")
    for command, meaning in _next(out, last):
        click.echo(f"   {command}\n      {meaning}")


def settings_of(out: Path, data: Path) -> dict[str, RunConfig]:
    return {
        name: configure(
            (recipe,),
            (),
            regime=regime,
            data={"path": str(data)},
            features={"cache": str(out / "cache"), "states": STATES},
            **few,
        )
        for name, (recipe, regime, few) in RUNS.items()
    }


def _say(text: str, indent: str = "   ") -> None:
    """A paragraph."""
    lines = textwrap.wrap(text, min(columns(), 90), initial_indent=indent, subsequent_indent=indent)
    click.echo("\n".join(lines))


def _show_heard(heard: Heard) -> None:
    from beatmeter.evaluation.timeline import clock

    room = max(20, min(columns(), 90) - 10) // 4 * 4
    click.echo("\n" + "\n".join(f"   {line}".rstrip() for line in heard.drawing(room)) + "\n")
    first, *more = heard.line.segments
    said = [f"{first.meter or 'no meter'} (probability {first.score:.2f})"]
    said += [f"from {clock(s.start)} on {s.meter or 'none'} ({s.score:.2f})" for s in more]
    _say(
        f"It hears {', '.join(said)}. It listens to 10 s at a time, so a change is found within some seconds."
    )
    click.echo(f"   the sound    {heard.audio}\n   the picture  {heard.picture}")


def show_learned(learned: Learned) -> None:
    """The rows with a sentence each, and whether the last is better than the one before."""
    from beatmeter.evaluation.report.text import table

    test, train = learned.rows[-1].accuracy.n, learned.train
    cells = [["at random", f"{100 / learned.classes:.0f} %", "", ""]]
    for row in learned.rows:
        a = row.accuracy
        right = f"{100 * a.value:.0f} % [{100 * a.low:.0f}, {100 * a.high:.0f}]"
        cells.append([row.name, right, f"{row.seconds:.0f} s" if row.folder else "", ""])
    head = ["", f"right of {test}", "learned in", ""]
    lines = table(head, cells, 1)
    click.echo(f"\n   {lines[0]}")
    for (name, *_), line in zip(cells, lines[1:], strict=True):
        click.echo(f"   {line}")
        _say(SENTENCES[name].format(train=train), "      ")
    click.echo("")
    _say(f"{_answers(learned)} {_probabilities(learned)} Intervals are 95 %.")


def _answers(learned: Learned) -> str:
    """What LoRA changed of the answers."""
    gain, change = learned.gain, learned.gain.tests[0]
    if not gain.gains + gain.losses:
        return "LoRA changes no answer of frozen."
    luck = (
        "which may be luck with so few pieces" if change.verdict == "not distinguishable" else "and no luck"
    )
    return (
        f"LoRA is right on {gain.gains:.0f} pieces on which frozen is wrong, and wrong on {gain.losses:.0f} "
        f"on which it is right: {100 * change.difference:+.0f} points "
        f"[{100 * change.low:+.0f}, {100 * change.high:+.0f}], {luck}."
    )


def _probabilities(learned: Learned) -> str:
    """What LoRA changed of how sure the answers are."""
    change = learned.gain.tests[1]
    verdict = {
        "better": "It is better at saying how sure it is",
        "worse": "It is worse at saying how sure it is",
        "not distinguishable": "How well it says how sure it is differs by no more than luck",
    }[change.verdict]
    return f"{verdict} (log loss {change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}])."


def _next(out: Path, run: Path | None) -> list[tuple[str, str]]:
    """Commands to type next, with what they do."""
    own = [
        ("beatmeter predict YOUR-MUSIC/", "which meter each of your files has"),
        ("beatmeter serve", "a page on this machine that hears your microphone"),
        ("beatmeter help training", "how to teach it labels of yours"),
    ]
    if run is None:
        return [("beatmeter demo", "the second part too: models learn, in some minutes"), *own]
    return [(f"beatmeter report {run} --open", "everything about the last model on one page"), *own]
