"""Families of audio encoders in `transformers`, as a table: which class, where its layers are, what goes
in, where its frames lie.

The HuBERT family itself (HuBERT, MERT, wav2vec 2.0) has an encoder of our own and is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from beatmeter.errors import BackboneError

Values = Mapping[str, Any]  # of a JSON file


@dataclass(frozen=True)
class Geometry:
    """Where frames lie, and how much audio an encoder takes. Samples are at its own rate."""

    hop: int  # samples between frames
    span: int  # samples that one frame sees
    dim: int
    n_layers: int
    seconds: float = 5.0  # of a chunk: what a network with a fixed input expects, else 5
    bands: int = 1  # positions per frame, over frequency: their states are averaged
    leading: int = 0  # positions before the first frame: class and distillation tokens


@dataclass(frozen=True)
class Family:
    """One architecture of `transformers`; `model`, `config` and `extractor` are names of classes there."""

    model: str
    geometry: Callable[[Any, Values], Geometry]  # of the config and of preprocessor_config.json
    part: str = ""  # where the audio encoder is in the model
    layers: str = "encoder.layers"  # where its layers are in the encoder
    norms: tuple[str, ...] = ("encoder.layer_norm",)  # what may follow the last layer
    extractor: str = ""  # what makes its input of waves; empty where it takes the waves themselves
    own_projections: Mapping[str, str] = field(
        default_factory=dict
    )  # its names of q_proj, v_proj and the others
    states: Callable[[Tensor, Geometry], Tensor] = lambda x, _: x
    whole_only: bool = False  # its layers differ in size: only the last one's states are offered


def convolutions(config: Any, _: Values) -> Geometry:
    """Frames of a stack of convolutions over the waves."""
    hop, span = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        span += (kernel - 1) * hop
        hop *= stride
    return Geometry(hop, span, config.hidden_size, config.num_hidden_layers)


def stacked_filter_banks(config: Any, about: Values) -> Geometry:
    """w2v-BERT 2.0: frames of 25 ms every 10 ms, `stride` of them side by side."""
    stride, rate = int(about.get("stride", 2)), int(about.get("sampling_rate", 16_000))
    hop, window = rate // 100, rate // 40
    return Geometry(stride * hop, window + (stride - 1) * hop, config.hidden_size, config.num_hidden_layers)


def whisper(config: Any, about: Values) -> Geometry:
    """Whisper's encoder halves the rate of its mel frames and takes a fixed number of them: 30 s, shorter
    audio is padded."""
    rate, hop = int(about.get("sampling_rate", 16_000)), 2 * int(about.get("hop_length", 160))
    return Geometry(hop, hop, config.d_model, config.encoder_layers, config.max_source_positions * hop / rate)


def patches(config: Any, about: Values) -> Geometry:
    """AST: patches over frequency and time, of a fixed number of mel frames (25 ms every 10 ms)."""
    rate = int(about.get("sampling_rate", 16_000))
    frames = (config.max_length - config.patch_size) // config.time_stride + 1
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    hop = config.time_stride * (rate // 100)
    span = rate // 40 + (config.patch_size - 1) * (rate // 100)
    return Geometry(hop, span, config.hidden_size, config.num_hidden_layers, frames * hop / rate, bands, 2)


def clap(config: Any, about: Values) -> Geometry:
    """CLAP's audio tower: a Swin transformer over one picture of the mel spectrogram of 10 s; its last
    feature map in time."""
    audio = config.audio_config
    seconds, rate = float(about.get("max_length_s", 10)), int(about.get("sampling_rate", 48_000))
    stages = len(audio.depths)
    ratio = audio.spec_size // audio.num_mel_bins
    frames = ratio * (audio.spec_size // (2 ** (stages - 1) * audio.patch_stride[1]))
    hop = round(seconds * rate / frames)
    return Geometry(hop, hop, audio.patch_embeds_hidden_size * 2 ** (stages - 1), 1, seconds)


def over_patches(x: Float[Tensor, "chunk position dim"], at: Geometry) -> Float[Tensor, "chunk frame dim"]:
    """The mean over frequency of patches that are counted frequency by frequency, without the tokens
    before them."""
    patches, count = x[:, at.leading :], (x.shape[1] - at.leading) // at.bands
    return patches.reshape(x.shape[0], at.bands, count, x.shape[2]).mean(dim=1)


def over_map(x: Float[Tensor, "chunk dim band frame"], _: Geometry) -> Float[Tensor, "chunk frame dim"]:
    """The mean over frequency of a feature map."""
    return x.mean(dim=2).transpose(1, 2)


FAMILIES: Mapping[str, Family] = {
    "wavlm": Family("WavLMModel", convolutions),
    "data2vec-audio": Family("Data2VecAudioModel", convolutions),
    "unispeech": Family("UniSpeechModel", convolutions),
    "unispeech-sat": Family("UniSpeechSatModel", convolutions),
    "wav2vec2-conformer": Family(
        "Wav2Vec2ConformerModel",
        convolutions,
        own_projections={n: f"linear_{n[0]}" for n in ("q_proj", "k_proj", "v_proj")},
    ),
    "wav2vec2-bert": Family(
        "Wav2Vec2BertModel",
        stacked_filter_banks,
        norms=(),
        extractor="SeamlessM4TFeatureExtractor",
        own_projections={n: f"linear_{n[0]}" for n in ("q_proj", "k_proj", "v_proj")},
    ),
    "whisper": Family(
        "WhisperModel",
        whisper,
        part="encoder",
        layers="layers",
        norms=("layer_norm",),
        extractor="WhisperFeatureExtractor",
    ),
    "audio-spectrogram-transformer": Family(
        "ASTModel",
        patches,
        layers="layers",
        norms=("layernorm",),
        extractor="ASTFeatureExtractor",
        states=over_patches,
    ),
    "clap": Family(
        "ClapModel",
        clap,
        part="audio_model",
        layers="audio_encoder.layers",
        norms=("audio_encoder.norm",),
        extractor="ClapFeatureExtractor",
        own_projections={"q_proj": "query", "k_proj": "key", "v_proj": "value"},
        states=over_map,
        whole_only=True,
    ),
}


def family_of(model_type: str, where: str) -> Family:
    """The family of a config's `model_type`. Raises BackboneError, naming `where`, for one that is not in the
    table but in `transformers` and takes waves through convolutions as wav2vec 2.0 does: those are tried as
    they are."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = MODEL_MAPPING_NAMES.get(model_type)
    if (
        model_type in CONFIG_MAPPING
        and isinstance(name, str)
        and hasattr(CONFIG_MAPPING[model_type](), "conv_stride")
    ):
        return Family(name, convolutions)
    raise BackboneError(
        f"{where}: model_type {model_type!r} is no audio encoder that beatmeter knows",
        f"It knows: hubert, mert_model, wav2vec2, {', '.join(FAMILIES)}.",
    )
