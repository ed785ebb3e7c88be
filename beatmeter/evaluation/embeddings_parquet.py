"""Embeddings as Parquet, which vector databases and data frames read: one row an item with the columns

    id          text; not unique where a track has several parts
    start, end  s, null for a whole track
    group, label, source   text
    vector      float32, a list of fixed size, of length 1

The metadata of the schema holds how the vectors were made, as JSON under `beatmeter`. Needs pyarrow
(`pip install 'beatmeter[parquet]'`).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from beatmeter.errors import DataError
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.atomic import write_bytes
from beatmeter.schema import Embeddings


def require_pyarrow() -> None:
    """Raise DataError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError("writing Parquet needs pyarrow", "pip install 'beatmeter[parquet]'") from None


def write_parquet(path: Path, record: Embeddings) -> None:
    """Write one Parquet file in one atomic step. Raises DataError where pyarrow is missing or nothing can be
    written."""
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    vectors = np.ascontiguousarray(record.unit, dtype=np.float32)
    dim = vectors.shape[1]
    seconds = [pa.array(t, pa.float64(), mask=np.isnan(t)) for t in record.times.T]
    columns = {
        "id": pa.array(record.ids, pa.string()),
        "start": seconds[0],
        "end": seconds[1],
        "group": pa.array(record.groups, pa.string()),
        "label": pa.array(record.labels, pa.string()),
        "source": pa.array(record.sources, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
    }
    about = to_json({"dim": dim, "items": len(record), "meta": dict(record.meta)}, indent=None)
    table = pa.table(columns).replace_schema_metadata({"beatmeter": about})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
