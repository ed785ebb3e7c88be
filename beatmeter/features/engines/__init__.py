"""Extraction on many processes and machines: an engine hands tracks to workers, the workers commit to the
store themselves."""

from beatmeter.features.engines.base import ENGINES, Engine, open_engine
from beatmeter.features.engines.spreading import Spread, spread
from beatmeter.features.engines.work import Order, Report, work

__all__ = ["ENGINES", "Engine", "Order", "Report", "Spread", "open_engine", "spread", "work"]
