"""Learned similarity: one unit vector a track, learned from which tracks belong together."""
