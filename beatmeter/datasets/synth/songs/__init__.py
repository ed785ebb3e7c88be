"""Whole songs with exact structure: `render_song(seed)` gives a Song. See docs/songs.md."""

from beatmeter.datasets.synth.songs.rendering import render_song
from beatmeter.datasets.synth.songs.song import Section, Song

__all__ = ["Section", "Song", "render_song"]
