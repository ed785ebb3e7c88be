"""beatmeter page, beatmeter serve"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from beatmeter.cli.options import echo

PATH = click.Path(path_type=Path)
DEFAULT = "spectral-lag"  # the smallest of the models that ship, and the fastest in a browser
BEATS = "beats"
PORT = 8321

runtime_option = click.option(
    "--runtime",
    metavar="URL|FILE",
    envvar="BEATMETER_ONNXRUNTIME_WEB",
    help="The npm archive of onnxruntime-web; without it the cache, or npm, once.",
)
beats_option = click.option(
    "--beats/--no-beats", default=True, show_default=True, help="Lights and a click for beats and bars."
)


@click.command()
@click.argument("model", required=False)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="The folder of the page.")
@beats_option
@runtime_option
def page(model: str | None, out: Path, beats: bool, runtime: str | None) -> None:
    """Write a page that hears meter in the browser: from the microphone and from files, without a server that
    computes.

    MODEL is a folder of `beatmeter export`, or what `beatmeter export` takes: a run, or the name of a model
    that ships (spectral-lag when it is left out). Any web server can serve DIR; the microphone needs https or
    localhost.

    \b
    beatmeter page --out site
    beatmeter page exported --out site
    beatmeter serve site
    """
    from beatmeter.serving.page.build import write_page

    files = page_of(model, runtime, beats)
    write_page(files, out)
    size = sum(map(len, files.values()))
    echo(f"{out}: {len(files)} files, {size / 1e6:.1f} MB. Hear it: beatmeter serve {out}")


@click.command()
@click.argument("folder", required=False, type=PATH, metavar="[DIR]")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
@beats_option
@runtime_option
def serve(folder: Path | None, port: int, beats: bool, runtime: str | None) -> None:
    """Serve the page on this machine, for this machine only, until Ctrl-C.

    DIR is a folder of `beatmeter page`; without it a page of the model spectral-lag is made first.

    \b
    beatmeter serve
    beatmeter serve site --port 8000
    """
    from beatmeter.serving.page.build import read_page
    from beatmeter.serving.page.server import PageServer

    if folder is None:
        echo("making the page; `beatmeter page --out site` keeps one for `beatmeter serve site`")
    files = page_of(None, runtime, beats) if folder is None else read_page(folder)
    with PageServer(files, port) as server:
        echo(f"open {server.address} in a browser; Ctrl-C ends")
        server.serve_forever()


def page_of(model: str | None, runtime: str | None, beats: bool) -> dict[str, bytes]:
    """The files of a page, by path."""
    from beatmeter.serving.page.build import is_exported, page_files, read_exported
    from beatmeter.serving.page.runtime import ADDRESS, VERSION, cached_runtime, get_runtime

    exported = model is not None and is_exported(Path(model))
    if exported:
        read_exported(Path(model or ""))  # before anything is fetched
    if runtime is None and cached_runtime() is None:
        echo(f"fetching onnxruntime-web {VERSION} (33 MB, once) from {ADDRESS}")
    engine = get_runtime(runtime or ADDRESS)
    with _exported(model or DEFAULT) as folder, _exported(BEATS) if beats else nullcontext() as beside:
        return page_files(folder, engine, beside)


@contextmanager
def _exported(model: str) -> Iterator[Path]:
    """The folder of an exported model; one that is not exported yet is, for as long as it is needed."""
    from beatmeter.serving.page.build import is_exported

    if is_exported(Path(model)):
        yield Path(model)
        return
    from beatmeter.serving.onnx.export import export

    with tempfile.TemporaryDirectory(prefix="beatmeter-page-") as name:
        export(model, Path(name) / "exported", echo)
        yield Path(name) / "exported"
