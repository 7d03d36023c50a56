"""A convolution and its BatchNorm, run as one."""

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        if self.bn is None or self.training:
            features = self.c(features)
            return features if self.bn is None else self.bn(features)
        # Folding takes microseconds and keeps the checkpoint's names loadable at any time.
        weight, bias = fold(self.c.weight, self.bn)
        conv = self.c
        return functional.conv2d(
            features, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )


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
