"""Pre-training of the embedded backbone on synthesised music: what it hears, the loop, the files that
ship."""
