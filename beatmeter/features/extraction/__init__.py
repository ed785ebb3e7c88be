"""The extraction service: plan what is missing, decode ahead, infer in batches of equal length, commit in
segments."""

from beatmeter.features.extraction.committing import Outcome
from beatmeter.features.extraction.extractor import Extractor
from beatmeter.features.extraction.planning import Plan, plan
from beatmeter.features.extraction.shards import Shard

__all__ = ["Extractor", "Outcome", "Plan", "Shard", "plan"]
