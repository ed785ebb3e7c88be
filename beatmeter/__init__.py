"""beatmeter hears musical meter: features from a music transformer, a store for them, light heads, honest diagnostics."""

__version__ = "0.1.0"
