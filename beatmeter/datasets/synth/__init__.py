"""Synthesised music with exact meter: `render(seed)` gives a Clip. See docs/generator.md."""

from beatmeter.datasets.synth.clip import Clip
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.rendering import render

__all__ = ["Clip", "SynthOptions", "render"]
