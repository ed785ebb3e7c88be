"""Writes small random checkpoints of every family of `transformers` encoders, as their publishers do:
`write_family`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
WAVES = SIZE | {
    "conv_dim": [16] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.1,  # as published: of training
    "mask_time_prob": 0.05,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "wavlm": WAVES | {"num_buckets": 32, "max_bucket_distance": 80},
    "data2vec-audio": WAVES | {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
    "unispeech": WAVES,
    "unispeech-sat": WAVES | {"do_stable_layer_norm": True},
    "wav2vec2-conformer": WAVES | {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7},
    "wav2vec2-bert": SIZE | {"feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 7},
    "whisper": {
        "d_model": 32,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "vocab_size": 60,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "max_source_positions": 200,  # 4 s
        "num_mel_bins": 80,
    },
    "audio-spectrogram-transformer": SIZE | {"max_length": 400, "num_mel_bins": 128},
    "clap": {
        "projection_dim": 16,
        "text_config": {
            "vocab_size": 60,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
        "audio_config": {
            "spec_size": 64,
            "num_mel_bins": 16,
            "window_size": 2,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "patch_embeds_hidden_size": 16,
            "hidden_size": 32,
            "patch_stride": [4, 4],
            "enable_fusion": True,
        },
    },
}
EXTRACTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-bert": ("SeamlessM4TFeatureExtractor", {}),
    "whisper": ("WhisperFeatureExtractor", {"chunk_length": 4}),
    "audio-spectrogram-transformer": ("ASTFeatureExtractor", {"max_length": 400}),
    "clap": (
        "ClapFeatureExtractor",
        {
            "feature_size": 16,
            "hop_length": 1000,
            "max_length_s": 4,
            "fft_window_size": 2048,
            "truncation": "fusion",
        },
    ),
}
MODELS = {"whisper": "WhisperModel", "clap": "ClapModel"}


def write_family(folder: Path, model_type: str, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint in `folder`, which is created: config.json, preprocessor_config.json,
    model.safetensors."""
    torch.manual_seed(seed)
    config = transformers.CONFIG_MAPPING[model_type](**{**CONFIGS[model_type], **changes})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # what begins at zero or one would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    kind, settings = EXTRACTORS.get(model_type, ("Wav2Vec2FeatureExtractor", {"do_normalize": True}))
    getattr(transformers, kind)(**settings).save_pretrained(folder)
    return folder
