"""beatmeter export"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import echo

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model", required=False)
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="A new folder, or one of an earlier export."
)
def export(model: str | None, out: Path) -> None:
    """Write MODEL as two ONNX graphs, for programs without torch: C++, Rust, phones, browsers.

    MODEL is a run folder, an ensemble, or the name of a model that ships (see `beatmeter models`), by default
    spectral-lag; `beats` is the one that hears beats and bars. Nothing is written unless the graphs hear what
    the model hears in torch. DIR/hear.py shows how they are used. Needs pip install 'beatmeter[onnx]'.

    \b
    beatmeter export spectral-lag --out exported
    beatmeter export beats --out exported-beats
    python exported/hear.py song.wav
    """
    from beatmeter.serving.onnx.export import export as write

    about = write(model or "spectral-lag", out, echo)
    parity, graphs = about["parity"], about["graphs"]
    size = sum(graph["bytes"] for graph in graphs.values()) / 1e6
    echo(
        f"{out}: {size:.1f} MB; largest difference to torch {parity['largest']:.1e} in "
        f"{len(parity['cases'])} cases ({parity['tolerance']:g} is allowed), no answer changed"
    )
    echo(f"use: python {out / 'hear.py'} song.wav; docs/export.md says what the graphs take and give")
