"""Proxy targets: what can be measured of a recording, as columns by track id that probes and training read.

from beatmeter.datasets.targets import TARGETS, measure_targets
"""

from beatmeter.datasets.targets.measures import DROPPED, TARGETS, Target
from beatmeter.datasets.targets.table import measure_targets

__all__ = ["DROPPED", "TARGETS", "Target", "measure_targets"]
