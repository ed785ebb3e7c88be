"""onnxruntime-web, which computes ONNX graphs in a browser: one pinned version, fetched once, checked by its
hashes and kept in the user's cache.

It is 14 MB, and most who install beatmeter never make a page, so it is not in the package.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from beatmeter.errors import ConfigError, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_bytes

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
FILES: Mapping[str, tuple[str, str]] = {  # our name: the name in the archive, SHA-256
    "ort.mjs": (
        "package/dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort.wasm": (
        "package/dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
LARGEST = 128 << 20  # bytes of an archive
SECONDS = 60  # without a byte before a download is given up
LICENCE = f"""onnxruntime-web {VERSION}, https://github.com/microsoft/onnxruntime

MIT License. Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions
of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
DEALINGS IN THE SOFTWARE.
"""


def cache_folder() -> Path:
    """Where it is kept: below $XDG_CACHE_HOME, or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "beatmeter" / f"onnxruntime-web-{VERSION}"


def cached_runtime() -> dict[str, bytes] | None:
    """The files by name when all of them are in the cache, whole; else None."""
    found = {}
    for name, (_, digest) in FILES.items():
        file = cache_folder() / name
        data = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        found[name] = data
    return found


def get_runtime(source: str = ADDRESS) -> dict[str, bytes]:
    """The files by name: from the cache, else from `source`, an address (https) or a file of the npm archive
    (.tgz), from which they go to the cache.

    Raises ConfigError when there is nothing to be had, or when it is not version `VERSION`.
    """
    if (found := cached_runtime()) is not None:
        return found
    remote = source.startswith(("https://", "http://"))
    data = _fetch(source) if remote else read_bytes(Path(source), ConfigError, _hint(), LARGEST)
    files = _unpack(data, source)
    for name, content in files.items():
        atomic.write_bytes(cache_folder() / name, content)
    return files


def _fetch(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as response:
            data: bytes = response.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(f"cannot fetch {shown(address)}: {reason}", _hint()) from None
    if len(data) > LARGEST:
        raise ConfigError(f"{shown(address)} has more than {LARGEST >> 20} MB", _hint())
    return data


def _unpack(data: bytes, source: str) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for name, (member, _) in FILES.items():
                file = archive.extractfile(member)
                found[name] = b"" if file is None else file.read(LARGEST)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise ConfigError(
            f"{shown(source)} is not the npm archive of onnxruntime-web: {error}", _hint()
        ) from None
    for name, (member, digest) in FILES.items():
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise ConfigError(f"{member} in {shown(source)} is not that of version {VERSION}", _hint())
    return found


def _hint() -> str:
    return (
        f"Where there is a network, download {ADDRESS}, bring the file here, and name it: --runtime FILE. It "
        "is needed once."
    )
