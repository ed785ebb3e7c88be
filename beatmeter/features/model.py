"""The features that some settings ask for: which backbone, in which precision, and which spec."""

from __future__ import annotations

from functools import cached_property

import torch

from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.pooling import feature_spec
from beatmeter.runtime.device import fast_dtype
from beatmeter.schema import FeatureSpec
from beatmeter.settings import FeatureConfig

LARGE = 512  # width from which a model is worth bfloat16


class FeatureModel:
    """A backbone by its settings, on a device. It is loaded when it is first needed."""

    def __init__(self, config: FeatureConfig, device: torch.device) -> None:
        self.config, self.device = config, device

    @cached_property
    def dtype(self) -> str:
        """Compute precision: a large model takes what is fast here, small ones and spectra stay in
        float32."""
        if self.config.dtype != "auto":
            return self.config.dtype
        return fast_dtype(self.device) if self.outline.dim >= LARGE else "float32"

    @cached_property
    def outline(self) -> Backbone:
        """What the backbone is, without its weights: enough to plan with."""
        return load_backbone(self.config.backbone, self.config.revision, self.config.normalise, weights=False)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone up to its last wanted layer, in its compute precision, on the device."""
        return self.load(self.spec.last_layer)

    def load(self, depth: int) -> Backbone:
        """The backbone up to a layer."""
        c = self.config
        return load_backbone(c.backbone, c.revision, c.normalise, self.dtype, depth=depth).to(self.device)

    @cached_property
    def spec(self) -> FeatureSpec:
        """What is extracted."""
        return feature_spec(self.outline, self.config, self.dtype)

    def describe(self) -> str:
        """Backbone, precision, device and licence in one line; says so when the weights are untrained."""
        identity, depth = self.outline.identity, self.outline.n_layers
        shape = f"{depth} layer{'s' * (depth != 1)} x {self.outline.dim}"
        untrained = "" if identity.trained else ", UNTRAINED weights from a fixed seed"
        return (
            f"features: {identity.name} ({shape}, {self.dtype} on {self.device}, "
            f"{identity.licence}{untrained})"
        )
