"""A convolution and its GELU in one: the same numbers, closer to those of fp32."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional

from vllm_csp.cpu_dtypes import has_instructions
from vllm_csp.sam import fused_gelu
from vllm_csp.sam.encoder_kind import build_encoder
from vllm_csp.sam.fused_gelu import conv_gelu, linear_gelu
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM

CONVOLUTIONS = {
    "1x1": nn.Conv2d(32, 48, 1),
    "3x3 depthwise": nn.Conv2d(32, 32, 3, 1, 1, groups=32),
    "3x3 with stride, without bias": nn.Conv2d(3, 16, 3, 2, 1, bias=False),
}


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@torch.inference_mode()
def test_it_is_the_two_steps_up_to_one_rounding(
    conv: nn.Conv2d,
    layout: torch.memory_format,
    dtype: torch.dtype,
    capability: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    torch.manual_seed(0)
    features = torch.randn(2, conv.in_channels, 17, 20).to(memory_format=layout)
    exact = functional.gelu(conv(features))
    cast = deepcopy(conv).to(dtype)
    found = conv_gelu(cast, features.to(dtype), cast.weight, cast.bias)
    assert found.dtype == dtype and found.shape == exact.shape
    assert (found.float() - exact).norm() < 4 * torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.inference_mode()
def test_a_linear_layers_gelu_is_the_two_steps_up_to_one_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features, linear = torch.randn(5, 7, 64), nn.Linear(64, 48)
    exact = functional.gelu(linear(features))
    found = linear_gelu(features.to(dtype), linear.weight.to(dtype), linear.bias.to(dtype))
    assert found.dtype == dtype and found.shape == exact.shape
    assert (found.float() - exact).norm() < 4 * torch.finfo(dtype).eps * exact.norm()


@torch.enable_grad()
def test_it_has_gradients_where_they_are_wanted() -> None:
    conv = nn.Conv2d(3, 4, 1).bfloat16()
    done = conv_gelu(conv, torch.randn(1, 3, 5, 5).bfloat16(), conv.weight, conv.bias)
    assert done.requires_grad
    layer = nn.Linear(3, 4)
    assert linear_gelu(torch.randn(5, 3), layer.weight, layer.bias).requires_grad


@torch.inference_mode()
def test_mobile_sams_embeddings_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the precision in which this CPU serves a checkpoint in bf16."""
    dtype = torch.bfloat16 if has_instructions(torch.bfloat16) else torch.float32
    torch.manual_seed(0)
    encoder = build_encoder(MOBILE_SAM).eval().to(dtype)
    pixels = torch.randn(1, 3, 1024, 1024).to(dtype)
    fused = encoder(pixels).double()
    monkeypatch.setattr(fused_gelu, "can_fuse", lambda *_: False)
    plain = encoder(pixels).double()
    assert not torch.equal(fused, plain)
    exact = encoder.double()(pixels.double())
    assert (fused - exact).norm() < 1.1 * (plain - exact).norm()
