"""Probes: what each layer of a feature store knows of each target, by closed-form fits over folds of whole
groups.

from beatmeter.experiments.probes import probe, write_probe
"""

from beatmeter.experiments.probes.probing import Cell, Probe, Subject, fused, probe
from beatmeter.experiments.probes.writing import probe_text, write_probe

__all__ = ["Cell", "Probe", "Subject", "fused", "probe", "probe_text", "write_probe"]
