"""The words of beatmeter, checked when built: Track, FeatureSpec, Features, the family of prediction records,
Finding.

Nothing here knows torch, files or tasks. Arrays are numpy; times are seconds; axes are named in the
docstrings.
"""

from beatmeter.schema.checks import canonical_json, sha256_json
from beatmeter.schema.embeddings import Embeddings, as_embeddings
from beatmeter.schema.features import (
    RECORDED,
    SCHEMA_VERSION,
    ChunkSpec,
    Features,
    FeatureSpec,
    Pooled,
    PoolingSpec,
    Unit,
)
from beatmeter.schema.finding import Finding
from beatmeter.schema.marks import DOWNBEAT, KNOWN, Curves, MarkList, Marks, as_curves, as_marks
from beatmeter.schema.records import ClassPredictions, Items, ValuePredictions, as_classes, as_values
from beatmeter.schema.track import SPLITS, Track, label_table

__all__ = [
    "DOWNBEAT",
    "KNOWN",
    "RECORDED",
    "SCHEMA_VERSION",
    "SPLITS",
    "ChunkSpec",
    "ClassPredictions",
    "Curves",
    "Embeddings",
    "FeatureSpec",
    "Features",
    "Finding",
    "Items",
    "MarkList",
    "Marks",
    "Pooled",
    "PoolingSpec",
    "Track",
    "Unit",
    "ValuePredictions",
    "as_classes",
    "as_curves",
    "as_embeddings",
    "as_marks",
    "as_values",
    "canonical_json",
    "label_table",
    "sha256_json",
]
