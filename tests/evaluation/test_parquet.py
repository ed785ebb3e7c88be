"""Embeddings as Parquet: what the file holds, and the example of the documentation in a vector database."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from beatmeter.errors import DataError
from beatmeter.evaluation.embeddings_parquet import write_parquet
from beatmeter.schema import Embeddings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vectors.md"
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: beatmeter[parquet]")


def record(n: int = 40, dim: int = 6) -> Embeddings:
    rng = np.random.default_rng(0)
    times = np.full((n, 2), np.nan)
    times[1] = 0.0, 20.0
    return Embeddings(
        ids=tuple(f"träck {i}" for i in range(n)),
        groups=tuple(f"g{i // 2}" for i in range(n)),
        sources=("s",) * n,
        split="",
        times=times,
        vectors=(3 * rng.normal(size=(n, dim))).astype(np.float32),
        labels=("",) * n,
        chroma=tuple(np.zeros((0, 12), np.float32) for _ in range(n)),
        views=np.zeros((n, 0), np.float32),
        meta={"model": "m"},
    )


def test_a_row_an_item_with_unit_vectors_of_fixed_size(tmp_path: Path) -> None:
    e = record()
    write_parquet(tmp_path / "e.parquet", e)
    table = parquet.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["id", "start", "end", "group", "label", "source", "vector"]
    assert table["id"].to_pylist() == list(e.ids)
    assert table["start"].to_pylist()[:2] == [None, 0.0]
    assert table.schema.field("vector").type.list_size == 6
    assert np.allclose(np.stack(table["vector"].to_pylist()), e.unit, atol=1e-7)
    assert json.loads(table.schema.metadata[b"beatmeter"])["meta"] == {"model": "m"}
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_parquet(tmp_path / "folder.parquet", e)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_example_of_the_documentation_finds_what_the_cosine_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qdrant_client")
    e = record()
    write_parquet(tmp_path / "music.parquet", e)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (example,) = [block for block in blocks if "# Qdrant" in block]
    names: dict[str, object] = {}
    exec(example, names)
    hits = names["hits"]
    assert isinstance(hits, list)
    right = np.argsort(-(e.unit @ e.unit[0]), kind="stable")[:10]
    assert [hit.payload["id"] for hit in hits] == [e.ids[i] for i in right]
