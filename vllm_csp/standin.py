"""Writes a small LISA checkpoint with random weights, in the published layout.

For trying the server and for tests: its answers and masks have no meaning.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vllm_csp.sam.sam import Sam
from vllm_csp.sam.vit_geometry import VIT_H

ADDED_TOKENS = {"<im_patch>": 32000, "<im_start>": 32001, "<im_end>": 32002, "[SEG]": 32003}
VISION = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=224,
    patch_size=14,
)
SAM = replace(VIT_H, embed_dim=64, depth=4, num_heads=2, global_attention_indexes=(1, 3))


def write_standin(
    folder: Path,
    *,
    hidden_size: int = 128,
    intermediate_size: int = 256,
    num_layers: int = 8,
    num_heads: int = 4,
    seed: int = 0,
) -> Path:
    """Write a stand-in checkpoint and return its folder; an existing one is kept.

    About 25 MB with the default sizes. Raises `FileNotFoundError` when no sentencepiece model is at
    hand (one comes with `mistral-common`, which vLLM installs).
    """
    if (folder / "config.json").exists():
        return folder
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=32004,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
    )
    save_file(_weights(text), folder / "model.safetensors", metadata={"format": "pt"})
    CLIPVisionModel(VISION).save_pretrained(folder / "clip")
    (folder / "added_tokens.json").write_text(json.dumps(ADDED_TOKENS))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    )
    tokenizer = files("mistral_common") / "data" / "tokenizer.model.v1"
    shutil.copy(str(tokenizer), folder / "tokenizer.model")
    # Last, so that an interrupted run is not taken for a finished one.
    (folder / "config.json").write_text(json.dumps(_published_config(text), indent=2))
    return folder


def _weights(text: LlamaConfig) -> dict[str, Tensor]:
    hidden = text.hidden_size
    sam = Sam(SAM)
    nn.init.normal_(sam.get_parameter("image_encoder.pos_embed"), std=0.02)
    projector = nn.Linear(VISION.hidden_size, hidden)
    queries = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 256))
    parts = {
        "": LlamaForCausalLM(text).bfloat16(),
        "model.mm_projector.": projector.bfloat16(),
        "model.text_hidden_fcs.0.": queries,
        "model.visual_model.": sam.half(),
    }
    return {
        prefix + name: tensor.contiguous()
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def _published_config(text: LlamaConfig) -> dict[str, object]:
    names = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "hidden_act",
    ]
    return {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "mm_hidden_size": VISION.hidden_size,
        "mm_use_im_start_end": True,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "clip",
        "vision_tower": "clip",
        "out_dim": 256,
        "train_mask_decoder": True,
        **{name: getattr(text, name) for name in names},
    }
