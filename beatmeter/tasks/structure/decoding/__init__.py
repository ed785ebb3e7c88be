"""Curves to marks, numpy only."""

from beatmeter.tasks.structure.decoding.peaks import peaks
from beatmeter.tasks.structure.decoding.pointer import Beats, PointerSettings, find_bars

__all__ = ["Beats", "PointerSettings", "find_bars", "peaks"]
