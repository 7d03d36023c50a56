"""The layout of LISA's published checkpoints, for those who write one."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig

# In this order behind the vocabulary; the tokenizer's `added_tokens.json` has them.
ADDED_TOKENS = ("<im_patch>", "<im_start>", "<im_end>", "[SEG]")
QUERY_CHANNELS = 256

_OF_THE_TEXT_MODEL = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    *("rms_norm_eps", "hidden_act", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def published_config(text: LlamaConfig, vision_width: int, vision_layer: int) -> dict[str, Any]:
    """What such a checkpoint's `config.json` says; CLIP's tower lies beside it in `clip`.

    vision_width: channels of a CLIP feature. vision_layer: the layer it is of; -1: the last.
    """
    return {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        "torch_dtype": "bfloat16",
        "mm_hidden_size": vision_width,
        "mm_use_im_start_end": True,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": vision_layer,
        "mm_vision_tower": "clip",
        "vision_tower": "clip",
        "out_dim": QUERY_CHANNELS,
        "train_mask_decoder": True,
        **{name: getattr(text, name) for name in _OF_THE_TEXT_MODEL},
    }
