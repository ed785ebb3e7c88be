"""Settings: recipes list differences, `--set` changes one leaf, whatever is wrong is named with the nearest
right one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.errors import ConfigError
from beatmeter.runtime.artifacts import read_toml
from beatmeter.runtime.config import (
    build,
    change,
    describe,
    differences,
    flatten,
    parse_assignment,
    to_json,
    to_toml,
)
from beatmeter.settings import RunConfig


def put(text: str) -> RunConfig:
    return change(RunConfig(), parse_assignment(text, RunConfig()))


def test_set_reads_toml_values_and_bare_words() -> None:
    assert put("training.epochs=3").training.epochs == 3
    assert put("training.clip=2").training.clip == 2.0
    assert put("features.backbone=embedded").features.backbone == "embedded"
    assert put("head.poolings=stats,lag").head.poolings == ("stats", "lag")
    assert put("head.poolings=lag").head.poolings == ("lag",)
    assert put("task.classes=3,4").task.classes == ("3", "4")
    assert put("head.dilations=1,2").head.dilations == (1, 2)
    assert put('head.poolings=["lag"]').head.poolings == ("lag",)
    assert put("head.standardise=false").head.standardise is False
    assert put("features.layers=3").features.layers == "3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epoch=3", "Did you mean 'training.epochs'"),
        ("epochs=3", "Did you mean 'training.epochs'"),
        ("training=3", "Set training.<name>"),
        ("training.epochs", "not of the form"),
        ("training.epochs=three", "must be a whole number, got"),
        ("training.epochs=0", "must be above zero"),
        ("training.epochs=true", "must be a whole number, got"),
        ("adapter.kind=lorra", "Choose one of: lora, last_layers, full"),
        ("features.poolings=stats,leg", "Choose from: stats, lag, rhythm, frames"),
        ("task.smoothing=1", "must be in"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        put(text)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        change(RunConfig(), {"split": {"val": 0.9, "test": 0.2}})


def test_a_recipe_with_an_unknown_key_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepoks = 3\n")
    with pytest.raises(ConfigError, match=r"mine\.toml.*training\.epoks.*Did you mean 'training\.epochs'"):
        build(RunConfig, read_toml(path), str(path))
    path.write_text("[training\n")
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML.*line 1"):
        read_toml(path)


NAMES = ["spectral", 'a "quoted" näme', "line\nbreak", "back\\slash"]
values = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 10),
        "training": st.fixed_dictionaries(
            {}, optional={"epochs": st.integers(1, 50), "head_lr": st.floats(1e-6, 1.0)}
        ),
        "features": st.fixed_dictionaries(
            {}, optional={"backbone": st.sampled_from(NAMES), "poolings": st.just(("lag",))}
        ),
        "head": st.fixed_dictionaries(
            {},
            optional={
                "standardise": st.booleans(),
                "dilations": st.lists(st.integers(1, 9), min_size=1).map(tuple),
            },
        ),
    },
)


@given(values)
def test_differences_as_toml_bring_the_same_settings_back(nested: dict[str, object]) -> None:
    config = build(RunConfig, nested)
    text = to_toml(differences(config, RunConfig()))
    assert build(RunConfig, tomllib.loads(text)) == config


def test_every_setting_has_help_and_one_leaf_name() -> None:
    described = describe(RunConfig())
    assert [name for name, _, _ in described] == list(flatten(RunConfig()))
    assert all(text for _, _, text in described)
    assert to_json(RunConfig())["training"]["epochs"] == 30


def test_mission_defaults() -> None:
    c = RunConfig()
    assert (c.training.epochs, c.training.patience, c.training.batch, c.training.accumulation) == (
        30,
        10,
        4,
        8,
    )
    assert (c.training.head_lr, c.training.adapter_lr, c.training.weight_decay, c.training.clip) == (
        1e-4,
        1e-5,
        1e-4,
        1.0,
    )
    assert (c.adapter.r, c.adapter.alpha, c.adapter.dropout, c.adapter.targets) == (
        16,
        32.0,
        0.05,
        ("q_proj", "v_proj"),
    )
    assert (c.head.hidden, c.head.dropout, c.head.standardise) == (256, 0.3, True)
    assert (c.task.meters, c.task.smoothing, c.task.loss) == (
        ("3", "4", "5", "7", "9", "11"),
        0.1,
        "unbiased",
    )
    assert c.features.backbone == "m-a-p/MERT-v1-330M"
