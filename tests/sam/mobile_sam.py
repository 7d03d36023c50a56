"""MobileSAM's published weights, and its point prompts with upstream's own decoder."""

from functools import cache
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from vllm_csp.sam.mask_decoder import (
    DECODER_DEPTH,
    DECODER_HEADS,
    DECODER_MLP_DIM,
    IOU_HEAD_DEPTH,
    IOU_HEAD_HIDDEN_DIM,
    MULTIMASK_OUTPUTS,
)
from vllm_csp.sam.prompt_encoder import MASK_PROMPT_CHANNELS
from vllm_csp.sam.upstream import import_modeling

FOLDER = Path(__file__).parents[3] / "shared" / "assets" / "mobile-sam"
WEIGHTS = FOLDER / "mobile_sam.safetensors"


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


@cache
def published_weights() -> dict[str, Tensor]:
    """All tensors, fp32."""
    return load_file(WEIGHTS)


def photo(name: str = "truck.jpg") -> Image.Image:
    """One of the photos beside the weights."""
    with Image.open(FOLDER / name) as image:
        return image.convert("RGB")


def point_logits(embedding: Tensor, point: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Upstream's prompt encoder and decoder on one foreground point.

    `embedding`: fp32 [1, 256, 64, 64]. `point`: x, y in the padded square.
    Returns: the logits [3, 256, 256] of three masks and their predicted IoU [3].
    """
    modeling = import_modeling()
    weights = published_weights()
    prompts = modeling.PromptEncoder(
        embed_dim=256,
        image_embedding_size=(64, 64),
        input_image_size=(1024, 1024),
        mask_in_chans=MASK_PROMPT_CHANNELS,
    )
    prompts.load_state_dict(part(weights, "prompt_encoder."))
    decoder = modeling.MaskDecoder(
        transformer_dim=256,
        transformer=modeling.TwoWayTransformer(
            depth=DECODER_DEPTH,
            embedding_dim=256,
            num_heads=DECODER_HEADS,
            mlp_dim=DECODER_MLP_DIM,
        ),
        num_multimask_outputs=MULTIMASK_OUTPUTS,
        iou_head_depth=IOU_HEAD_DEPTH,
        iou_head_hidden_dim=IOU_HEAD_HIDDEN_DIM,
    )
    decoder.load_state_dict(part(weights, "mask_decoder."))
    place = (torch.tensor([[point]]), torch.ones(1, 1))
    sparse, dense = prompts(points=place, boxes=None, masks=None)
    logits, scores = decoder(
        image_embeddings=embedding,
        image_pe=prompts.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return logits[0], scores[0]
