"""GELU of a convolution or a linear layer, in one pass over its output where oneDNN can do that.

On a CPU a GELU by itself takes as long as the convolution before it or longer, most of it for
reading and writing what was just written. The fused operators are those that torch.compile uses;
they have no gradients. Results differ from the two steps by rounding: the first one's output is not
rounded to bf16 in between.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.cpu_dtypes import has_instructions


def conv_gelu(conv: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """GELU of `plain_conv`.

    In fp32 one operation on CPUs without AVX-512 only: there it was measured (benchmarks/LOG.md).
    """
    narrow = torch.backends.cpu.get_cpu_capability() == "AVX2"
    if not can_fuse(features, torch.bfloat16, *[torch.float32] * narrow):
        return functional.gelu(plain_conv(conv, features, weight, bias))
    padding = [int(side) for side in conv.padding]
    geometry = (padding, list(conv.stride), list(conv.dilation), conv.groups)
    done: Tensor = torch.ops.mkldnn._convolution_pointwise(
        features, weight, bias, *geometry, "gelu", [], "none"
    )
    return done


def linear_gelu(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU of a linear layer over features [..., C]."""
    if not can_fuse(features, torch.bfloat16, torch.float32):
        return functional.gelu(functional.linear(features, weight, bias))
    done: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "gelu", [], "none")
    return done


def plain_conv(conv: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of this geometry with other weights."""
    return functional.conv2d(
        features, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def can_fuse(tensor: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether oneDNN does it, on a CPU and in one of these dtypes.

    It refuses those for which the CPU has no instructions.
    """
    if tensor.device.type != "cpu" or tensor.dtype not in dtypes or torch.is_grad_enabled():
        return False
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and has_instructions(tensor.dtype)
