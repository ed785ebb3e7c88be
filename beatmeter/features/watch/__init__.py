"""Watching a folder: files that arrive are extracted as they come, for as long as the process runs."""
