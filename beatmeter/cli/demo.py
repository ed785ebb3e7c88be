"""beatmeter demo"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import TERMINAL, configure, device_option, echo
from beatmeter.runtime.cores import usable_cores

RUNS = (
    ("frozen-spectral-lag", "spectral-lag", "frozen"),
    ("frozen-embedded-stats", "embedded-stats", "frozen"),
    ("frozen-embedded-lag", "embedded-lag", "frozen"),
    ("lora-embedded-lag", "embedded-lora", "streamed"),
)
STARTS = {"lora-embedded-lag": "frozen-embedded-lag"}  # the head first, then the backbone


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs/demo",
    show_default=True,
    help="Where music, features and runs go.",
)
@click.option("--clips", default=180, show_default=True, help="Synthetic clips, the six classes in turn.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that synthesise music.  [default: one for each core]",
)
@device_option
def demo(out: Path, clips: int, jobs: int | None, device: str) -> None:
    """The whole line on synthetic music, offline, in a few minutes: data, features, frozen heads, LoRA,
    evaluation.

    \b
    beatmeter demo
    beatmeter demo --clips 600 --out runs/larger-demo
    """
    from beatmeter.experiments.demo import demo as run_demo
    from beatmeter.experiments.demo import table
    from beatmeter.runtime.device import choose_device

    configs = []
    for name, recipe, regime in RUNS:
        training = {"accumulation": 2}  # few clips: small steps
        values = {
            "regime": regime,
            "data": {"path": str(out / "data")},
            "features": {"cache": str(out / "cache")},
            "training": training,
        }
        configs.append((name, configure((recipe,), (), **values)))
    entries, (clip, answer) = run_demo(
        out,
        configs,
        choose_device(device),
        clips,
        STARTS,
        jobs=jobs or usable_cores(),
        report=echo,
        progress=TERMINAL,
    )
    click.echo(f"\n{table(entries)}\n")
    order = ", ".join(f"{answer.classes[i]} {answer.scores[i]:.2f}" for i in answer.order[:3])
    click.echo(f"{clip} is heard in {answer.meter or 'no meter'} ({order})")
    click.echo(
        f"chance is {100 / len(answer.classes):.0f} %; intervals are 95 %. Music: {out / 'data'}, features: "
        f"{out / 'cache'}"
    )
