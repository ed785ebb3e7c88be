"""beatmeter page, beatmeter serve"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import echo

PATH = click.Path(path_type=Path)
PORT = 8321

runtime_option = click.option(
    "--runtime",
    metavar="URL|FILE",
    envvar="BEATMETER_ONNXRUNTIME_WEB",
    help="The npm archive of onnxruntime-web; without it the cache, or npm, once.",
)


@click.command()
@click.argument("exported", type=PATH)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="The folder of the page.")
@runtime_option
def page(exported: Path, out: Path, runtime: str | None) -> None:
    """Write a page that hears meter in the browser: from the microphone and from files, without a server that
    computes.

    EXPORTED is a folder of two ONNX graphs and model.json, see docs/export.md. Any web server can serve DIR;
    the microphone needs https or localhost.

    \b
    beatmeter page exported --out site
    beatmeter serve site
    """
    from beatmeter.serving.page.build import write_page

    files = _files(exported, runtime)
    write_page(files, out)
    size = sum(map(len, files.values()))
    echo(f"{out}: {len(files)} files, {size / 1e6:.1f} MB. Hear it: beatmeter serve {out}")


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
def serve(folder: Path, port: int) -> None:
    """Serve the page on this machine, for this machine only, until Ctrl-C.

    DIR is a folder of `beatmeter page`.

    \b
    beatmeter serve site --port 8000
    """
    from beatmeter.serving.page.build import read_page
    from beatmeter.serving.page.server import PageServer

    with PageServer(read_page(folder), port) as server:
        echo(f"open {server.address} in a browser; Ctrl-C ends")
        server.serve_forever()


def _files(model: Path, runtime: str | None) -> dict[str, bytes]:
    """The files of a page, by path."""
    from beatmeter.serving.page.build import page_files, read_exported
    from beatmeter.serving.page.runtime import ADDRESS, VERSION, cached_runtime, get_runtime

    read_exported(model)
    if runtime is None and cached_runtime() is None:
        echo(f"fetching onnxruntime-web {VERSION} (33 MB, once) from {ADDRESS}")
    return page_files(model, get_runtime(runtime or ADDRESS))
