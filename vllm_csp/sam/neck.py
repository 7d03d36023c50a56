"""The last layers of every SAM image encoder: from its own width to SAM's."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.sam.fused_gelu import plain_conv
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

    `features`: [B, D, h, w]. Returns: [B, C, h, w], same dtype. Upstream's norms over channels are
    six operations on the whole array; here each is torch's layer norm of the cells.
    Upstream: LISA `model/segment_anything/modeling/image_encoder.py`.
    """
    wide = features.float() if features.dtype == torch.float16 else features
    for layer in neck.children():
        wide = _norm(layer, wide) if isinstance(layer, LayerNorm2d) else _conv(layer, wide)
    return wide.to(features.dtype)


def _norm(norm: Any, features: Tensor) -> Tensor:
    weight, bias = norm.weight.to(features.dtype), norm.bias.to(features.dtype)
    cells = features.permute(0, 2, 3, 1)
    cells = functional.layer_norm(cells, weight.shape, weight, bias, norm.eps)
    return cells.permute(0, 3, 1, 2)


def _conv(conv: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    return plain_conv(conv, features, conv.weight.to(features.dtype), None)
