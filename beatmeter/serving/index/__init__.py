"""An index of vectors on disk: exact search, inverted lists, adding and removing while others read.

from beatmeter.serving.index import Index
"""

from beatmeter.serving.index.index import Hits, Index
from beatmeter.serving.index.manifest import MANIFEST
from beatmeter.serving.index.shards import Entries

__all__ = ["MANIFEST", "Entries", "Hits", "Index"]
