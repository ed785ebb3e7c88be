"""Synthesised music with exact meter: `render(seed)` gives a Clip. See docs/generator.md."""

from beatmeter.audio.synth.clip import Clip
from beatmeter.audio.synth.options import SynthOptions
from beatmeter.audio.synth.rendering import render

__all__ = ["Clip", "SynthOptions", "render"]
