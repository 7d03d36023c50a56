"""The last layers of every SAM image encoder: from its own width to SAM's."""

import torch
from torch import Tensor, nn

from vllm_csp.sam.upstream import LayerNorm2d


def build_neck(in_channels: int, out_channels: int) -> nn.Sequential:
    """The neck of SAM's image encoders, with upstream's names.

    Upstream: segment-anything `modeling/image_encoder.py`.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


def apply_neck(neck: nn.Module, features: Tensor) -> Tensor:
    """Run a neck, in fp32 when the features are fp16: its squares leave the range of fp16.

    `features`: [B, D, h, w]. Returns: [B, C, h, w], same dtype.
    Upstream: LISA `model/segment_anything/modeling/image_encoder.py`.
    """
    if features.dtype != torch.float16:
        embedding: Tensor = neck(features)
        return embedding
    weights = {name: weight.float() for name, weight in neck.named_parameters()}
    embedding = torch.func.functional_call(neck, weights, features.float())
    return embedding.half()
