"""Two bilinear steps as one product per side."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vllm_csp.images import sam_input_size
from vllm_csp.sam.resize import CPU_BAND, LONGEST_SIDE, Side, resized_side, to_original

SIDE = 1024
SIZES = [(480, 640), (640, 427), (1080, 1920), (3000, 2000), (1, 1), (20, 300), (7, 1000)]
LONG = [(1, LONGEST_SIDE + 1), (5000, 300), (2_000_000, 1)]


def logits(rows: int = 2) -> torch.Tensor:
    """Smooth ones [rows, 256, 256] of both signs."""
    coarse = torch.randn(rows, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, (256, 256), mode="bicubic")[:, 0]


def two_steps(low: torch.Tensor, inside: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """As LISA does it."""
    square = functional.interpolate(low[:, None], (SIDE, SIDE), mode="bilinear")
    return functional.interpolate(square[..., : inside[0], : inside[1]], size, mode="bilinear")[
        :, 0
    ]


@pytest.mark.parametrize("size", SIZES + LONG)
def test_it_is_both_steps_up_to_rounding(size: tuple[int, int]) -> None:
    inside, low = sam_input_size(size), logits()
    found, expected = to_original(low, inside, size, SIDE), two_steps(low, inside, size)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("size", LONG)
def test_no_matrix_is_made_for_a_long_side(size: tuple[int, int]) -> None:
    """One line of 2^26 pixels is a small file, and would be a matrix of 64 GiB."""
    before = resized_side.cache_info().misses
    to_original(logits(1), sam_input_size(size), size, SIDE)
    assert resized_side.cache_info().misses == before


def test_columns_lie_one_after_the_other() -> None:
    assert to_original(logits(), (768, 1024), (48, 64), SIDE).stride() == (48 * 64, 1, 48)


def test_half_precision_is_widened_first() -> None:
    low = logits().bfloat16()
    found = to_original(low, (768, 1024), (48, 64), SIDE)
    assert torch.equal(found, to_original(low.float(), (768, 1024), (48, 64), SIDE))


def test_bands_leave_nothing_out() -> None:
    for inside, outside in ((768, 480), (1024, 4000), (1, 1), (1000, 1)):
        made = resized_side(256, SIDE, inside, outside, torch.device("cpu"))
        covered = torch.zeros_like(made.matrix, dtype=torch.bool)
        for first, last, start, end in made.bands:
            assert last - first <= CPU_BAND
            covered[first:last, start:end] = True
        assert not made.matrix[~covered].any()
        assert torch.allclose(made.matrix.sum(dim=1), torch.ones(outside))


def test_a_side_without_bands_is_the_whole_product() -> None:
    """What another device does."""
    made = resized_side(256, SIDE, 768, 480, torch.device("cpu"))
    values = torch.randn(2, made.matrix.shape[1], 5)
    whole = Side(made.matrix, ((0, 480, 0, made.matrix.shape[1]),))
    assert torch.allclose(made.applied(values), whole.applied(values), atol=1e-5)
    assert torch.allclose(made.applied(values), torch.matmul(made.matrix, values), atol=1e-5)
