"""The extraction service: plan what is missing, decode ahead, infer in batches of equal length, commit in segments."""

from beatmeter.extraction.committing import Outcome
from beatmeter.extraction.extractor import Extractor
from beatmeter.extraction.planning import Plan, plan
from beatmeter.extraction.shards import Shard

__all__ = ["Extractor", "Outcome", "Plan", "Shard", "plan"]
