"""Libraries of DJ programs as annotations: Rekordbox XML and ANLZ files, Traktor collections, Serato tags."""

from beatmeter.datasets.dj.anlz import read_analyses
from beatmeter.datasets.dj.building import Built, build_dataset
from beatmeter.datasets.dj.library import Cue, Library, LibraryTrack, Tempo
from beatmeter.datasets.dj.rekordbox import read_rekordbox
from beatmeter.datasets.dj.rekordbox_writing import render_rekordbox
from beatmeter.datasets.dj.serato import read_serato
from beatmeter.datasets.dj.traktor import read_traktor

__all__ = [
    "Built",
    "Cue",
    "Library",
    "LibraryTrack",
    "Tempo",
    "build_dataset",
    "read_analyses",
    "read_rekordbox",
    "read_serato",
    "read_traktor",
    "render_rekordbox",
]
