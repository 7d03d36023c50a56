"""Masks as JSON: both formats hold the same pixels."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vllm_csp.masks import MaskFormat, decode_mask, encode_mask

FORMATS: tuple[MaskFormat, ...] = ("rle", "png")
Mask = npt.NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed, share = draw(st.integers(0, 999)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return np.random.default_rng(seed).random((height, width)) < share


@given(mask=masks(), mask_format=st.sampled_from(FORMATS))
@settings(deadline=None, max_examples=200)
def test_a_mask_comes_back_through_json(mask: Mask, mask_format: MaskFormat) -> None:
    encoded = json.loads(json.dumps(encode_mask(mask, 0.25, 3, mask_format)))
    assert np.array_equal(decode_mask(encoded), mask)
    assert encoded["size"] == list(mask.shape)
    assert encoded["area"] == mask.sum()
    assert (encoded["score"], encoded["seg_index"]) == (0.25, 3)


@pytest.mark.parametrize("mask_format", FORMATS)
def test_the_box_is_left_top_width_height(mask_format: MaskFormat) -> None:
    mask = np.zeros((7, 11), bool)
    mask[2:5, 3:9] = True
    assert encode_mask(mask, 1.0, 0, mask_format)["bbox"] == [3, 2, 6, 3]


@pytest.mark.parametrize("mask_format", FORMATS)
def test_an_empty_mask_is_a_mask(mask_format: MaskFormat) -> None:
    encoded = encode_mask(np.zeros((3, 4), bool), 0.0, 0, mask_format)
    assert (encoded["area"], encoded["bbox"]) == (0, [0, 0, 0, 0])
    assert not decode_mask(encoded).any()


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_does_not_matter(order: str) -> None:
    mask = np.random.default_rng(0).random((5, 9)) < 0.5
    copy = mask.copy(order=order)  # type: ignore[call-overload]
    assert encode_mask(copy, 0.5, 0, "rle") == encode_mask(mask, 0.5, 0, "rle")


def test_the_png_is_black_and_white_at_one_bit() -> None:
    mask = np.eye(6, dtype=bool)
    url = encode_mask(mask, 0.5, 0, "png")["png"]
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    picture = Image.open(BytesIO(base64.b64decode(data)))
    assert picture.mode == "1"
    assert np.array_equal(np.asarray(picture), mask)
