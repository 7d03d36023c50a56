"""Writes a small LISA checkpoint with random weights, in the published layout.

For trying the server and for tests: its answers and masks have no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vllm_csp.models.projector import query_head
from vllm_csp.models.published import ADDED_TOKENS, QUERY_CHANNELS, published_config
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.vit_geometry import VIT_H, VitGeometry
from vllm_csp.standin_tokenizer import PIECES, write_tokenizer

ADDED_IDS = {token: PIECES + number for number, token in enumerate(ADDED_TOKENS)}
VISION = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=224,
    patch_size=14,
)
# As in LISA: features of the layer before the last.
VISION_LAYER = -2
# What ends a prompt, and what is said then; words of longer answers come in between.
ANSWER = (":", "▁Sure", ",", "▁it", "▁is"), ("[SEG]", "▁.", "</s>")
SHORTEST_ANSWER = 7
MOST_FILLERS = 2000
FILLERS = range(1000, 3100)
LOUD = 40.0
SAM = replace(VIT_H, embed_dim=64, depth=4, num_heads=2, global_attention_indexes=(1, 3))


def write_standin(
    folder: Path,
    *,
    hidden_size: int = 128,
    intermediate_size: int = 256,
    num_layers: int = 8,
    num_heads: int = 4,
    vision: CLIPVisionConfig = VISION,
    sam: VitGeometry = SAM,
    answer_tokens: int = 0,
    seed: int = 0,
) -> Path:
    """Write a stand-in checkpoint and return its folder; an existing one is kept.

    About 25 MB with the default sizes. With `answer_tokens`, at least 7, it says "Sure, it is
    [SEG]." whatever it is asked, in so many tokens, so that answers have a length and a mask, as
    those of a trained LISA.
    """
    if (folder / "config.json").exists():
        return folder
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    text = llama_config(hidden_size, intermediate_size, num_layers, num_heads)
    tokenizer = write_tokenizer(folder)
    weights = build_weights(text, vision, sam)
    if answer_tokens:
        table, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
        teach(table, head, answer_ids(tokenizer, answer_tokens))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    CLIPVisionModel(vision).save_pretrained(folder / "clip")
    (folder / "added_tokens.json").write_text(json.dumps(ADDED_IDS))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    )
    # Last, so that an interrupted run is not taken for a finished one.
    config = published_config(text, vision.hidden_size, VISION_LAYER)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def llama_config(
    hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int
) -> LlamaConfig:
    """Of a LISA of that size: LLaMA's words and the added ones, as many key heads as heads."""
    return LlamaConfig(
        vocab_size=PIECES + len(ADDED_IDS),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
        pad_token_id=0,
    )


def build_weights(
    text: LlamaConfig, vision: CLIPVisionConfig, geometry: VitGeometry
) -> dict[str, Tensor]:
    """Random tensors under their published names; without CLIP's, which lie beside them."""
    hidden = text.hidden_size
    sam = Sam(geometry)
    nn.init.normal_(sam.get_parameter("image_encoder.pos_embed"), std=0.02)
    projector = nn.Linear(vision.hidden_size, hidden)
    queries = query_head(hidden, QUERY_CHANNELS)
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


def answer_ids(tokenizer: Path, length: int) -> list[int]:
    """The id that ends a prompt, and those of an answer of so many tokens with its end.

    Raises ValueError for a length below 7 or beyond 2007.
    """
    more = length - SHORTEST_ANSWER
    if not 0 <= more <= MOST_FILLERS:
        raise ValueError(f"no answer of {length} tokens: 7 to {SHORTEST_ANSWER + MOST_FILLERS}")
    pieces = SentencePieceProcessor(model_file=str(tokenizer))
    first, last = (
        [ADDED_IDS.get(one) or pieces.piece_to_id(one) for one in part] for part in ANSWER
    )
    free = [one for one in FILLERS if one not in (*first, *last)]
    return [*first, *free[:more], *last]


def teach(
    table: Tensor,
    head: Tensor,
    chain: Sequence[int],
    generator: torch.Generator | None = None,
) -> None:
    """Make each token of a chain call for the next one.

    `table`, `head`: embeddings and output rows [vocabulary, C], changed in place. The loud
    embedding of a token is still what its row consists of behind random layers, so a row of the
    head that points the same way has the greatest logit.
    """
    for token, following in pairwise(chain):
        direction = torch.randn(table.shape[1], generator=generator)
        table[token] = (LOUD * direction).to(table)
        head[following] = direction.to(head)
