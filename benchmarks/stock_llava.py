"""Writes a LLaVA checkpoint folder (no weights) of a stand-in's geometry, for vLLM's own model."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer, CLIPImageProcessorPil, LlamaConfig, LlavaConfig
from transformers import LlavaProcessor as Processor

from vllm_csp.standin import VISION
from vllm_csp.standin_tokenizer import write_tokenizer

IMAGE_TOKEN_ID = 32000


def write_stock_llava(folder: Path, text: LlamaConfig) -> Path:
    """The folder, for `load_format="dummy"`; 256 image tokens per image, as LISA has."""
    folder.mkdir(parents=True, exist_ok=True)
    vision = VISION.to_dict()
    # LLaVA's projector has two layers where LISA's has one: 0.1 % of the prefill.
    LlavaConfig(
        text_config=text.to_dict(),
        vision_config={**vision, "projection_dim": VISION.hidden_size},
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        architectures=["LlavaForConditionalGeneration"],
    ).save_pretrained(folder)
    write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    size = VISION.image_size
    Processor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=VISION.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder
