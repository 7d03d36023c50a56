"""SAM's linear layers in INT8, with the matrix kernels that vLLM has for INT8 checkpoints.

Nothing is calibrated: weights are quantised by output channel when they have been loaded,
activations by row while running.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.kernels.linear import init_int8_linear_kernel
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.platforms import current_platform

MULTIPLE = 16
"""Kernels on GPUs want rows of so many values."""


class Int8Linear(nn.Linear):
    """A linear layer that computes in INT8 from `quantize` on.

    Parameter names are those of `nn.Linear`, to be loaded; `weight` [N, K] then makes way for what
    the kernel keeps, with `weight_scale` fp32 [N, 1]. On a CPU that is an address: from then on the
    layer must not be copied, cast or loaded again.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        # What vLLM's kernels look for in a layer: scales measured beforehand, layers joined.
        self.input_scale = self.input_zero_point = self.azp_adj = None
        self.logical_widths = [plain.out_features]
        # By which vLLM's loader knows that there is something to do when weights are there.
        self.quant_method = Int8Method()

    @torch.no_grad()
    def quantize(self) -> None:
        """Round the weight to INT8; a second call changes nothing."""
        if hasattr(self, "kernel"):
            return
        # On a CPU with a zero point: closer after a GELU, and vLLM's way for every dtype and CPU.
        self.kernel = init_int8_linear_kernel(
            is_channelwise=True,
            is_static_input_scheme=False,
            input_symmetric=not current_platform.is_cpu(),
            module_name="SAM's image encoder",
        )
        weight, largest = self.weight.float(), largest_weight()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / largest
        rounded = (weight / scale).round().to(torch.int8)
        del self.weight
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)
        self.kernel.process_weights_after_loading(self)

    def forward(self, features: Tensor) -> Tensor:
        """[..., K] -> [..., N], same dtype.

        On a CPU a row of one and the same value, which no norm gives, comes out as the bias alone.
        """
        # Kernels differ in how many dimensions they take.
        rows = features.flatten(end_dim=-2)
        product: Tensor = self.kernel.apply_weights(self, rows, self.bias)
        return product.view(*features.shape[:-1], self.out_features)


class Int8Method(QuantizeMethodBase):
    """Has vLLM's loader quantise an `Int8Linear` once its weights are there."""

    def create_weights(self, layer: nn.Module, *sizes: Any, **attributes: Any) -> None:
        """Nothing: the layer has the weights of `nn.Linear`."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """See `Int8Linear.quantize`."""
        assert isinstance(layer, Int8Linear)
        layer.quantize()

    def apply(self, layer: nn.Module, *inputs: Any, **named: Any) -> Tensor:
        """See `Int8Linear.forward`."""
        product: Tensor = layer(*inputs, **named)
        return product


def use_int8(module: nn.Module) -> list[Int8Linear]:
    """Put an `Int8Linear` in the place of every linear layer whose sizes kernels can take.

    Returns: the new layers, not quantised yet.
    """
    found = []
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and _fits(layer):
                found.append(Int8Linear(layer))
                setattr(parent, name, found[-1])
    return found


def _fits(layer: nn.Linear) -> bool:
    return layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0


def largest_weight() -> int:
    """The largest INT8 weight: 127, or 64 on x86 CPUs without AVX-512 VNNI.

    There oneDNN adds two products of 8-bit numbers in 16 bits, which larger weights overflow:
    seen as errors of up to 8 % of the output (benchmarks/LOG.md), with 64 there are none.
    """
    if not current_platform.is_cpu():
        return 127
    able = torch.cpu.get_capabilities()
    return 64 if able["architecture"] == "x86_64" and not able["avx512_vnni"] else 127
