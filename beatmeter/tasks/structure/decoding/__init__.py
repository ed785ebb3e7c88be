"""Curves to marks, numpy only."""

from beatmeter.tasks.structure.decoding.bars import find_bars
from beatmeter.tasks.structure.decoding.peaks import peaks
from beatmeter.tasks.structure.decoding.pointer import Beats, PointerSettings

__all__ = ["Beats", "PointerSettings", "find_bars", "peaks"]
