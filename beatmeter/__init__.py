"""beatmeter hears musical meter: features from a music transformer, a store for them, light heads, honest diagnostics."""

from beatmeter.cores import wait_passively

__version__ = "0.1.0"

wait_passively()  # before anything of ours loads torch
