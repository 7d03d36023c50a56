"""A convolution and its BatchNorm, run as one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.sam.fused_gelu import conv_gelu, plain_conv


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm, run as one convolution unless in training.

    Folded: the BatchNorm is already in the convolution's weight and bias.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, folded: bool
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=folded)
        # In fp32 also within a half-precision model: folding subtracts what can be nearly equal.
        self.bn = None if folded else nn.BatchNorm2d(outputs, dtype=torch.float32)

    def forward(self, features: Tensor, gelu: bool = False) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]; `gelu`: and GELU of it."""
        if self.bn is not None and self.training:
            normal = self.bn(self.c(features))
            return functional.gelu(normal) if gelu else normal
        weight, bias = self.c.weight, self.c.bias
        if self.bn is not None:
            # Folding takes microseconds and keeps the checkpoint's names loadable at any time.
            weight, bias = fold(weight, self.bn)
        run = conv_gelu if gelu else plain_conv
        return run(self.c, features, weight, bias)


def fold(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does the work of a convolution and its BatchNorm.

    `weight`: [outputs, inputs, k, k], of a convolution without bias. Returns: both in its dtype.
    `torch.nn.utils.fusion` has the same, but cuts gradients off.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    folded = weight * scale.view(-1, 1, 1, 1)
    bias = norm.bias - norm.running_mean * scale
    return folded.to(weight.dtype), bias.to(weight.dtype)
