"""Linear layers in INT8: how close they are, and an engine whose SAM has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.mini_engine import engine, ious_to_loop, scene_ious
from vllm_csp.models.int8_linear import Int8Linear, use_int8
from vllm_csp.sam.encoder_kind import build_encoder
from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
from vllm_csp.serving.segmenter import Segmenter
from vllm_csp.standin import SAM

LEAST_IOU = 0.7
"""With what is right, in the mean."""
LEAST_IOU_TO_LOOP = 0.95


def quantized(plain: nn.Linear) -> Int8Linear:
    [layer] = use_int8(nn.Sequential(plain))
    layer.quantize()
    return layer


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (320, 1280), (1280, 320)])
def test_products_differ_by_two_hundredths_at_most(
    dtype: torch.dtype, inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 7, inputs)
    plain = nn.Linear(inputs, outputs)
    plain.weight.data.normal_()
    wanted = plain(features)
    found = quantized(plain.to(dtype))(features.to(dtype))
    assert found.shape == wanted.shape and found.dtype == dtype
    assert error(found, wanted) < 0.02


@torch.inference_mode()
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_numbers_do_not_overflow(sign: float) -> None:
    """Every product is as large as it can be, and all have one sign."""
    plain = nn.Linear(256, 64)
    plain.weight.data.fill_(sign)
    plain.bias.data.fill_(1.0)
    features = torch.stack((torch.ones(256), -torch.ones(256), torch.linspace(-1.0, 0.5, 256)))
    features[:2, 0] = 0.0
    wanted = plain(features)
    torch.testing.assert_close(quantized(plain)(features), wanted, rtol=0.01, atol=0.0)


@torch.inference_mode()
def test_weights_of_zero_and_features_of_zero_give_the_bias() -> None:
    plain = nn.Linear(64, 32)
    plain.weight.data[:16] = 0.0
    layer = quantized(plain)
    torch.testing.assert_close(
        layer(torch.zeros(3, 64)), plain.bias.expand(3, -1), rtol=0.0, atol=1e-6
    )
    assert torch.isfinite(layer(torch.randn(3, 64))).all()
    torch.testing.assert_close(
        layer(torch.randn(3, 64))[:, :16], plain.bias[:16].expand(3, -1), rtol=0.0, atol=1e-6
    )


@torch.inference_mode()
def test_a_second_call_changes_nothing() -> None:
    layer, features = quantized(nn.Linear(64, 32)), torch.randn(3, 64)
    before = layer(features)
    layer.quantize()
    assert torch.equal(layer(features), before)


def test_names_are_those_of_the_checkpoint_until_weights_are_there() -> None:
    encoder = build_encoder(MOBILE_SAM)
    names = list(encoder.state_dict())
    assert len(use_int8(encoder)) == 4 * 10
    assert list(encoder.state_dict()) == names


def test_sizes_that_kernels_do_not_take_stay_as_they_are() -> None:
    layers = nn.Sequential(nn.Linear(40, 32), nn.Linear(32, 40), nn.Linear(32, 48), nn.ReLU())
    assert use_int8(layers) == [layers[2]]
    assert type(layers[0]) is type(layers[1]) is nn.Linear


@torch.inference_mode()
def test_a_vit_gives_nearly_the_same_embedding() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(SAM).eval()
    pixels = torch.randn(1, 3, encoder.img_size, encoder.img_size)
    wanted = encoder(pixels)
    layers = use_int8(encoder)
    for layer in layers:
        layer.quantize()
    assert len(layers) == 4 * len(encoder.blocks)
    assert 0 < error(encoder(pixels), wanted) < 0.05


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with engine(sam_quantization="int8") as one:
        yield one


def test_masks_of_an_engine_in_int8_are_mostly_right(segmenter: Segmenter) -> None:
    ious = scene_ious(segmenter)
    assert len(ious) > 20 and np.mean(ious) > LEAST_IOU


def test_masks_in_int8_are_nearly_those_of_the_plain_loop_in_fp32(segmenter: Segmenter) -> None:
    assert min(ious_to_loop(segmenter)) > LEAST_IOU_TO_LOOP


def test_all_linear_layers_of_the_engines_encoder_are_in_int8(segmenter: Segmenter) -> None:
    [found] = segmenter.llm.apply_model(kinds)
    assert found == ["Int8Linear"] * 40


def kinds(model: Any) -> list[str]:
    """In the worker: the kinds of the image encoder's linear layers that have been quantised."""
    modules = model.visual_model.image_encoder.modules()
    linear = [one for one in modules if isinstance(one, nn.Linear)]
    return [type(one).__name__ for one in linear if hasattr(one, "kernel")]
