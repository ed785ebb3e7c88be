"""How accuracy falls as audio gets worse, shorter, faster or slower."""

from beatmeter.experiments.robustness.curves import WAYS, Curve, Point, Way, robustness

__all__ = ["WAYS", "Curve", "Point", "Way", "robustness"]
