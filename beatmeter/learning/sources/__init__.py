"""First waist, two sources: `Frozen` reads features from a store, `Streamed` makes them from audio as it
trains.

Everything after a source asks the same few questions: `prepare`, `batches`, `features`, `parameter_groups`.
So heads, losses and diagnostics cannot tell the regimes apart, and the words frozen and streamed stand in
this folder alone.
"""

from beatmeter.learning.sources.base import Batch, Source, in_order, one_ahead
from beatmeter.learning.sources.frozen import Cuts, Frozen, Table
from beatmeter.learning.sources.opening import open_source
from beatmeter.learning.sources.streamed import Streamed, saved_bytes

__all__ = [
    "Batch",
    "Cuts",
    "Frozen",
    "Source",
    "Streamed",
    "Table",
    "in_order",
    "one_ahead",
    "open_source",
    "saved_bytes",
]
