"""Extraction on many processes and machines: an engine hands tracks to workers, the workers commit to the store themselves."""

from beatmeter.engines.base import ENGINES, Engine, open_engine
from beatmeter.engines.spreading import Spread, spread
from beatmeter.engines.work import Order, Report, work

__all__ = ["ENGINES", "Engine", "Order", "Report", "Spread", "open_engine", "spread", "work"]
