"""The source that the settings ask for: the one place that knows the words frozen and streamed."""

from __future__ import annotations

import torch

from beatmeter.errors import ConfigError
from beatmeter.features.service import FeatureService, Report
from beatmeter.learning.sources.base import Source
from beatmeter.learning.sources.frozen import Frozen
from beatmeter.learning.sources.kept import keep_below
from beatmeter.learning.sources.streamed import Streamed
from beatmeter.schema import FeatureSpec
from beatmeter.settings import RunConfig


def open_source(
    config: RunConfig,
    device: torch.device,
    report: Report = print,
    spec: FeatureSpec | None = None,
    where: str = "this run",
) -> Source:
    """The source that the settings ask for. `spec`, found at `where`, of a saved run that is to be heard and
    not to be trained, must be what these give."""
    service = FeatureService(config.features, device)
    if config.regime == "frozen":
        source: Source = Frozen(service, config.head.poolings, config.augment, device, config.training.memory)
    else:
        wanted = service.spec.only(config.head.poolings)
        if service.memory is None:
            raise ConfigError(
                f"streamed training keeps waveforms in the cache, and {config.features.cache} is no folder",
                "Use --set features.cache=FOLDER.",
            )
        source = streamed = Streamed(
            service.backbone, wanted, config.adapter, config.augment, config.training, device, service.memory
        )
        streamed.streams_long = spec is not None
    if spec is not None:
        source.spec.require_agreement(spec, where)
    report(service.describe())
    if isinstance(source, Streamed) and spec is None:  # a run that is only heard keeps nothing
        source.kept = keep_below(config, service, source.backbone, source.spec, report)
    return source
