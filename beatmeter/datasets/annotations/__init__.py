"""Annotations of structure: beats, sections and moments of a track, from and to the formats that people
keep them in."""

from beatmeter.datasets.annotations.beside import Folders, find_annotation, find_annotations
from beatmeter.datasets.annotations.records import (
    BANDS,
    TIERS,
    Annotation,
    Events,
    Grid,
    Provenance,
    Spans,
    joined,
    within,
)
from beatmeter.datasets.annotations.registry import (
    FORMATS,
    Format,
    find_format,
    read_annotation,
    write_annotation,
)

__all__ = [
    "BANDS",
    "FORMATS",
    "TIERS",
    "Annotation",
    "Events",
    "Folders",
    "Format",
    "Grid",
    "Provenance",
    "Spans",
    "find_annotation",
    "find_annotations",
    "find_format",
    "joined",
    "read_annotation",
    "within",
    "write_annotation",
]
