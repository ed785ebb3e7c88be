"""Embeddings as Parquet: what the file holds, and the examples of the documentation in vector databases."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import PATIENCE

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


def example(database: str) -> str:
    """The code of the documentation for a database."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (found,) = [block for block in blocks if f"# {database}" in block]
    return str(found)


def nearest(e: Embeddings) -> list[str]:
    """The ids of the ten items nearest to the first by cosine, the nearest first."""
    return [e.ids[i] for i in np.argsort(-(e.unit @ e.unit[0]), kind="stable")[:10]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_example_for_qdrant_finds_what_the_cosine_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qdrant_client")
    e = record()
    write_parquet(tmp_path / "music.parquet", e)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example("Qdrant"), names)
    hits = names["hits"]
    assert isinstance(hits, list)
    assert [hit.payload["id"] for hit in hits] == nearest(e)


def test_the_example_for_milvus_finds_what_the_cosine_finds(tmp_path: Path) -> None:
    """In a process of its own: its FAISS brings another OpenMP than torch."""
    for package in ("pymilvus", "milvus_lite"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    e = record()
    write_parquet(tmp_path / "music.parquet", e)
    told = "import json; print(json.dumps([hit['entity'] for hit in hits]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{example('Milvus')}\n{told}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits = json.loads(done.stdout)
    assert [hit["track"] for hit in hits] == nearest(e)
    assert [hit["end"] for hit in hits] == [20.0 if hit["track"] == e.ids[1] else None for hit in hits]
