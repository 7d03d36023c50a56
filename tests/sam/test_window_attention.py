"""The image encoder against segment-anything's own, of which it has the weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.sam.conftest import SMALL
from vllm_csp.sam import window_attention
from vllm_csp.sam.upstream import ImageEncoderViT
from vllm_csp.sam.vit import VitEncoder


def encoder(**sizes: int) -> VitEncoder:
    torch.manual_seed(0)
    made = VitEncoder(replace(SMALL, **sizes)).eval()
    for weight in made.parameters():
        weight.data.normal_(std=0.2)
    return made


def relative_error(values: Tensor, expected: Tensor) -> float:
    return float((values.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("window", [0, 3, 4, 8], ids="window {}".format)
@pytest.mark.parametrize("way", ["_channels", "_fused", "_biased"])
@pytest.mark.parametrize("scores_at_once", [1, 1000, 1 << 22], ids="{} scores".format)
def test_the_encoder_is_upstreams(
    window: int, way: str, scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that fit the grid of 8 x 8 cells and one that sticks out; in one part and in many."""
    monkeypatch.setattr(window_attention, "way_for", lambda cells: getattr(window_attention, way))
    monkeypatch.setattr(window_attention, "SCORES_AT_ONCE", scores_at_once)
    ours = encoder(window_size=window)
    pixels = torch.randn(2, 3, 64, 64)
    assert relative_error(ours(pixels), ImageEncoderViT.forward(ours, pixels)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_has_a_way(dtype: torch.dtype) -> None:
    assert window_attention.way_for(torch.empty(0, dtype=dtype)) in (
        window_attention._biased,
        window_attention._channels,
    )


def test_bf16_is_as_near_to_fp32_as_upstream_is() -> None:
    exact = encoder()
    pixels = torch.randn(2, 3, 64, 64)
    expected = exact(pixels)
    cast = encoder().bfloat16()
    ours = relative_error(cast(pixels.bfloat16()), expected)
    upstream = relative_error(ImageEncoderViT.forward(cast, pixels.bfloat16()), expected)
    assert ours < 1.2 * upstream
