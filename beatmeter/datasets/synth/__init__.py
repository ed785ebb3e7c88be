"""Synthesised music with exact meter: `render(seed)` gives a Clip, `render_slice(seed, name)` a hard one.
See docs/generator.md."""

from beatmeter.datasets.synth.clip import Clip
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.rendering import render
from beatmeter.datasets.synth.slices import SLICES, render_slice

__all__ = ["SLICES", "Clip", "SynthOptions", "render", "render_slice"]
