"""GELU of a convolution, in one pass over its output where oneDNN can do that.

On a CPU a GELU by itself takes as long as the convolution before it or longer, most of it for
reading and writing what was just written. The fused operator is the one that torch.compile uses; it
has no gradients. Results differ from the two steps by rounding: the convolution's output is not
rounded to bf16 in between.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_gelu(conv: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """GELU of `plain_conv`."""
    if not can_fuse(features):
        return functional.gelu(plain_conv(conv, features, weight, bias))
    padding = [int(side) for side in conv.padding]
    geometry = (padding, list(conv.stride), list(conv.dilation), conv.groups)
    done: Tensor = torch.ops.mkldnn._convolution_pointwise(
        features, weight, bias, *geometry, "gelu", [], "none"
    )
    return done


def plain_conv(conv: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of this geometry with other weights."""
    return functional.conv2d(
        features, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def can_fuse(tensor: Tensor) -> bool:
    """Only in bf16 on a CPU; oneDNN refuses it where the CPU has no instructions for it."""
    on_cpu = tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16
    return on_cpu and not torch.is_grad_enabled() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
