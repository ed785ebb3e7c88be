"""Tasks on frames: what happens when in a track."""
