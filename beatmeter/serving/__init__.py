"""A run answers for audio files, arrays and streams."""
