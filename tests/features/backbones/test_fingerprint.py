"""Whatever changes a feature changes its fingerprint: every field of a checkpoint, every tensor, every
version and setting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from hubfolders import small_config, small_state, write_hub_folder
from safetensors.torch import load_file, save_file
from torch import Tensor

from beatmeter.audio import chunking, decode
from beatmeter.audio.chunking import Layout
from beatmeter.errors import BeatmeterError, FingerprintError, SchemaError
from beatmeter.features import lag, pooling
from beatmeter.features.backbones import hubert, load_backbone, spectral
from beatmeter.features.backbones.hubert_config import REFUSED
from beatmeter.features.pooling import Encoder, feature_spec
from beatmeter.features.poolings import Arrangement, frames, stats
from beatmeter.schema import RECORDED, SCHEMA_VERSION, FeatureSpec
from beatmeter.settings import FeatureConfig

POOLINGS = FeatureConfig(poolings=("stats", "lag"))
Outcome = Literal["refused", "another fingerprint", "equal features"]


def spec_of(name: Path | str, config: FeatureConfig = POOLINGS) -> FeatureSpec:
    backbone = load_backbone(str(name), config.revision, config.normalise, weights=False)
    return feature_spec(backbone, config, "float32" if config.dtype == "auto" else config.dtype)


def features(name: Path, spec: FeatureSpec) -> dict[str, Tensor]:
    layout = Layout.of(spec.chunk.length, spec)
    wave = torch.randn(1, spec.chunk.length, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.02
    with torch.inference_mode():
        return Encoder(load_backbone(str(name)), spec).eval()(wave, Arrangement.of(layout, 6))


@pytest.fixture(scope="module", params=["pre-LN", "post-LN"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of width 16: small enough to be asked two hundred times."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "conv_dim": [8] * 7,
    }
    folder = tmp_path_factory.mktemp("fingerprint") / "tiny"
    return write_hub_folder(folder, pre_norm=request.param == "pre-LN", weights="model.safetensors", **sizes)


def alternatives(value: Any) -> Iterator[Any]:
    """Other values that a field could have."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from {value + 1, value * 2, max(1, value // 2), 1} - {value}
    elif isinstance(value, float):
        yield from {value * 2, value * 0.1, value + 1e-3, 1.0} - {value}
    elif isinstance(value, list) and value and all(type(v) is int for v in value):
        yield from ([*reversed(value)], [v + 1 for v in value], value[1:], [*value[1:], value[0]])
    elif isinstance(value, str):
        yield from ("layer", "group", "relu", "hubert", "wav2vec2", "another")
    else:
        yield from (None, 1, [])


def outcome(changed: Path, spec: FeatureSpec, made: dict[str, Tensor]) -> Outcome:
    """What a changed checkpoint gives beside the one it was, whose spec and features are given."""
    try:
        now = spec_of(changed)
        if now.fingerprint != spec.fingerprint:
            return "another fingerprint"
        again = features(changed, now)
    except BeatmeterError:
        return "refused"
    assert again.keys() == made.keys()
    assert all(torch.equal(again[name], made[name]) for name in made), (
        "the fingerprint stayed, the features did not"
    )
    return "equal features"


def test_every_field_of_a_checkpoint_has_its_part_in_the_fingerprint(
    checkpoint: Path, tmp_path: Path
) -> None:
    spec, made = spec_of(checkpoint), features(checkpoint, spec_of(checkpoint))
    copy = tmp_path / "tiny"
    shutil.copytree(checkpoint, copy)
    assert outcome(copy, spec, made) == "equal features"
    found: dict[str, set[Outcome]] = {}
    for file in ("config.json", "preprocessor_config.json"):
        text = (checkpoint / file).read_text()
        values = json.loads(text)
        if file == "config.json":
            values = dict.fromkeys(REFUSED, None) | values  # what others may hold too
        for name, value in values.items():
            others = [{**values, name: other} for other in alternatives(value)] + [
                {k: v for k, v in values.items() if k != name}
            ]
            for other in others:
                (copy / file).write_text(json.dumps(other))
                found.setdefault(name, set()).add(outcome(copy, spec, made))
        (copy / file).write_text(text)
    deciding = {
        "num_attention_heads",
        "layer_norm_eps",
        "conv_stride",
        "do_stable_layer_norm",
        "sampling_rate",
        "do_normalize",
    }
    assert all("another fingerprint" in found[name] for name in deciding), {
        name: found[name] for name in deciding
    }
    dropouts = {name for name in found if name.endswith("dropout")}
    assert len(dropouts) == 4
    assert all("another fingerprint" not in found[name] for name in dropouts), (
        "dropouts act in training alone"
    )
    assert {name for name in REFUSED if "refused" in found[name]} >= {
        "hidden_act",
        "feat_extract_activation",
        "deepnorm",
    }
    (copy / "preprocessor_config.json").unlink()
    assert outcome(copy, spec, made) in ("another fingerprint", "refused")


def test_every_tensor_has_its_part_in_the_fingerprint(checkpoint: Path, tmp_path: Path) -> None:
    spec = spec_of(checkpoint)
    state = load_file(checkpoint / "model.safetensors")
    copy = tmp_path / "tiny"
    shutil.copytree(checkpoint, copy)
    for name, value in state.items():
        other = value.clone()
        other.view(-1)[-1] += 0.125
        save_file({**state, name: other}, copy / "model.safetensors")
        assert spec_of(copy).fingerprint != spec.fingerprint, name


def test_shards_that_hold_a_tensor_twice_are_refused(tmp_path: Path) -> None:
    """Which one counts would depend on the names of the files, which no fingerprint sees."""
    folder = write_hub_folder(tmp_path / "tiny", weights="sharded.safetensors")
    name, value = next(iter(small_state(small_config()).items()))
    for shard in folder.glob("model-*.safetensors"):
        save_file({**load_file(shard), name: value}, shard)
    with pytest.raises(BeatmeterError, match="hold tensors twice"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("module", "constant", "backbones"),
    [
        (hubert, "VERSION", ("folder", "embedded", "embedded-untrained")),
        (spectral, "REVISION", ("spectral",)),
        (pooling, "DECODING_VERSION", ("folder", "embedded", "embedded-untrained", "spectral")),
        (pooling, "CHUNKING_VERSION", ("folder", "embedded", "embedded-untrained", "spectral")),
        (stats, "VERSION", ("folder", "embedded", "spectral")),
        (lag, "LAG_VERSION", ("folder", "embedded", "spectral")),
        (frames, "VERSION", ("folder", "embedded", "spectral")),
    ],
)
def test_a_raised_version_begins_new_features(
    module: Any, constant: str, backbones: tuple[str, ...], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(POOLINGS, poolings=("stats", "lag", "frames"))
    names = [str(checkpoint) if name == "folder" else name for name in backbones]
    before = [spec_of(name, config).fingerprint for name in names]
    value = getattr(module, constant)
    monkeypatch.setattr(module, constant, value + 1 if isinstance(value, int) else str(int(value) + 1))
    after = [spec_of(name, config).fingerprint for name in names]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert decode.DECODING_VERSION == chunking.CHUNKING_VERSION == 1


def test_every_setting_of_features_has_its_part_in_the_fingerprint(checkpoint: Path) -> None:
    config = replace(POOLINGS, backbone=str(checkpoint), poolings=("stats", "lag", "frames"))
    others = {
        "backbone": "spectral",
        "layers": "1",
        "poolings": ("stats",),
        "statistics": ("mean",),
        "window": 2,
        "frame_rate": 25.0,
        "normalise": "no",
        "dtype": "bfloat16",
        "longest_lag": 14.0,
        "states": 1,
    }
    places = {"cache", "revision"}  # where features lie; a hub commit, which folders do not have
    assert {f.name for f in fields(FeatureConfig)} == set(others) | places | {"overlap"}
    mine = spec_of(checkpoint, config).fingerprint
    for name, value in others.items():
        changed = replace(config, **{name: value})
        assert spec_of(changed.backbone, changed).fingerprint != mine, name
    alone, overlapping = (
        spec_of(checkpoint, replace(config, poolings=("stats", "frames"), overlap=o)) for o in (0.0, 1.0)
    )  # lag wants none
    assert alone.fingerprint != overlapping.fingerprint


def test_every_field_of_a_spec_is_in_its_fingerprint(checkpoint: Path) -> None:
    spec = spec_of(checkpoint)
    others: dict[str, Any] = {
        "chunk": replace(spec.chunk, tail_min=0),
        "poolings": spec.poolings[:1],
        "encoder": {},
        "code": {"decoding": 9},
    }
    for field in fields(FeatureSpec):
        if field.name == "schema":
            continue
        value = getattr(spec, field.name)
        other = others.get(
            field.name,
            (not value) if isinstance(value, bool) else value + 3 if isinstance(value, int) else f"{value}-",
        )
        assert replace(spec, **{field.name: other}).fingerprint != spec.fingerprint, field.name


def test_a_spec_of_an_earlier_schema_keeps_its_fingerprint_and_agrees(checkpoint: Path) -> None:
    """The shipped models were made with schema 1."""
    for name in ("embedded", "spectral"):
        about = json.loads(
            (Path(pooling.__file__).parents[1] / "models" / f"{name}-lag" / "run.json").read_text()
        )
        saved = FeatureSpec.from_json(about["spec"])
        assert saved.schema == 1
        assert saved.to_json() == about["spec"]
        assert saved.fingerprint == about["fingerprint"]
        today = spec_of(name).only(["lag"])
        assert today.schema == SCHEMA_VERSION
        assert today.fingerprint != saved.fingerprint
        assert today.agrees(saved)
        today.require_agreement(saved, "the run")
        assert not today.covers(saved)
        assert not saved.covers(today)
        assert saved.why_not(today) == "made before encoder and code were recorded"
        other = replace(saved, weights="0" * 64)
        assert not today.agrees(other)
        with pytest.raises(FingerprintError, match=r"the run were made another way .*weights: 0000"):
            today.require_agreement(other, "the run")
    spec = spec_of(checkpoint)
    other = replace(spec, encoder={**spec.encoder, "num_attention_heads": 2})
    with pytest.raises(FingerprintError, match=r"encoder\.num_attention_heads: 2 != 4"):
        spec.require_agreement(other, "the run")
    assert other.why_not(spec) == "encoder.num_attention_heads: 2 != 4"


@pytest.mark.parametrize("schema", [0, SCHEMA_VERSION + 1, None, "1", 1.5])
def test_a_spec_of_a_schema_that_is_not_known_is_refused(schema: object, checkpoint: Path) -> None:
    value = spec_of(checkpoint).to_json() | {"schema": schema}
    with pytest.raises(SchemaError, match="schema"):
        FeatureSpec.from_json(value)
    earlier = cast(dict[str, Any], spec_of(checkpoint).to_json()) | {"schema": 1}
    with pytest.raises(SchemaError, match="has no field 'encoder'"):
        FeatureSpec.from_json(earlier)
    assert set(RECORDED) <= set(earlier)
    with pytest.raises(SchemaError, match="it has no schema"):
        FeatureSpec.from_json({k: v for k, v in earlier.items() if k != "schema"})
