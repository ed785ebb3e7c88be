"""Files of embeddings: .npz with the arrays `ids` and `vectors` that any program reads, JSON beside it.

The .npz holds `ids` (item,), `vectors` (item, dim) float32, `times` (item, 2) in seconds (nan for whole
tracks), `chroma` (row, 12) float16 of all items one after the other with `chroma_lengths` (item,), and
`views` (item, size) float32; the JSON holds groups, sources, labels, the names of views, and how the
vectors were made.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.errors import DataError, SchemaError
from beatmeter.evaluation.predictions import FORMAT, LARGEST, sidecar
from beatmeter.runtime.artifacts import read_bytes, read_json, require, to_json
from beatmeter.runtime.atomic import write_bytes, write_text
from beatmeter.schema import Embeddings

NAMES = ("groups", "sources", "labels")
ABOUT: dict[str, Any] = {name: [str] for name in NAMES} | {"split": str, "sha256": str, "items": int}
AGAIN = "Make it again with `beatmeter embed`."


def write_embeddings(path: Path, record: Embeddings) -> str:
    """Write .npz, whatever the suffix of `path`, and JSON; the sha256 of the .npz. The same embeddings give
    the same bytes. Raises DataError."""
    path = path.with_suffix(".npz")
    chroma = np.concatenate([np.zeros((0, 12)), *record.chroma])
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=np.array(record.ids, dtype=np.str_),
        vectors=record.vectors.astype(np.float32),
        times=record.times,
        chroma=chroma.astype(np.float16),
        chroma_lengths=np.array([len(c) for c in record.chroma], dtype=np.int64),
        views=record.views.astype(np.float32),
    )
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    about = {
        "format": FORMAT,
        "record": "embeddings",
        "items": len(record),
        "dim": record.vectors.shape[1],
        "split": record.split,
        "views": [list(view) for view in record.view_names],
        **{name: list(getattr(record, name)) for name in NAMES},
        "sha256": digest,
        "meta": dict(record.meta),
    }
    try:
        described = to_json(about, ensure_ascii=False, indent=None) + "\n"
        sidecar(path).unlink(missing_ok=True)
        write_bytes(path, data)
        write_text(sidecar(path), described)
    except UnicodeEncodeError as error:
        what = f"cannot write {path}: the name {error.object!r} is not valid UTF-8"
        raise DataError(what, "Rename that audio file.") from None
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    return digest


def holds_embeddings(path: Path) -> bool:
    """Whether the JSON beside an .npz says that it holds embeddings."""
    try:
        return bool(read_json(sidecar(path), DataError).get("record") == "embeddings")
    except (DataError, AttributeError):
        return False


def read_embeddings(path: Path, split: str | None = None) -> Embeddings:
    """Read what `write_embeddings` wrote. Raises DataError by name for files that are damaged or do not fit
    each other."""
    data = read_bytes(path, DataError, largest=LARGEST)
    about = read_json(sidecar(path), DataError, "Embeddings need the JSON that was written beside them.")
    require(about, ABOUT, str(sidecar(path)), DataError)
    if about["sha256"] != hashlib.sha256(data).hexdigest():
        raise DataError(f"{path} was changed after {sidecar(path).name} was written for it", AGAIN)
    if split not in (None, about["split"]):
        raise DataError(f"{path} has no items of the split {split!r}", f"It has: {about['split']!r}.")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ends = np.cumsum(arrays["chroma_lengths"])
        return Embeddings(
            ids=tuple(arrays["ids"].tolist()),
            vectors=arrays["vectors"],
            times=arrays["times"],
            chroma=tuple(np.split(arrays["chroma"].astype(np.float32), ends[:-1])) if len(ends) else (),
            views=arrays["views"],
            view_names=tuple((name, size) for name, size in about.get("views", [])),
            split=about["split"],
            meta=about.get("meta", {}),
            **{name: about[name] for name in NAMES},
        )
    except SchemaError as error:
        raise DataError(f"{path}: {error}", AGAIN) from None
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a whole file of embeddings: {error}", AGAIN) from None
