"""The controlled comparison of backbones, poolings and regimes: systems beside baselines, on several sets, in
parts."""

from beatmeter.experiments.study.judging import OWN, OnSet, judge, predict_elsewhere, run_baselines, to_csv

__all__ = ["OWN", "OnSet", "judge", "predict_elsewhere", "run_baselines", "to_csv"]
