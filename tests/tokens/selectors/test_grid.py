"""Choices by position equal their definitions."""

from __future__ import annotations

import pytest
import torch

from vllm_csp.tokens.selectors import SelectionError, SelectionInputs, selector
from vllm_csp.tokens.selectors.grid import stride_grid, stride_grid_size, uniform_grid

CPU = torch.device("cpu")


@pytest.mark.parametrize(("total", "budget"), [(256, 64), (256, 100), (576, 64), (15, 4), (9, 8)])
def test_uniform_is_the_papers_formula(total: int, budget: int) -> None:
    given = SelectionInputs(1, (1, total))
    expected = [i * (total // budget) for i in range(budget)]
    assert selector("uniform").select(given, budget)[0].tolist() == expected


def test_uniform_in_one_dimension_degenerates_on_16_columns() -> None:
    kept = selector("uniform").select(SelectionInputs(1, (16, 16)), 16)[0]
    assert (kept % 16).unique().tolist() == [0]


def test_grid_of_64_is_every_second_token() -> None:
    kept = selector("grid").select(SelectionInputs(1, (16, 16)), 64)[0].tolist()
    assert kept == [r * 16 + c for r in range(1, 16, 2) for c in range(1, 16, 2)]


def naive_grid(height: int, width: int, budget: int) -> list[int]:
    lines = round((budget * height / width) ** 0.5)
    while lines * width < budget:
        lines += 1
    lines = min(lines, height)
    kept = []
    for line in range(lines):
        row = int((line + 0.5) * height / lines)
        count = (line + 1) * budget // lines - line * budget // lines
        for place in range(count):
            kept.append(row * width + int((place + 0.5) * width / count))
    return kept


@pytest.mark.parametrize("shape", [(16, 16), (24, 24), (5, 3), (3, 8), (1, 9), (7, 1)])
def test_grid_equals_the_loop_for_every_budget(shape: tuple[int, int]) -> None:
    total = shape[0] * shape[1]
    for budget in range(1, total + 1):
        kept = uniform_grid(shape, budget, CPU).tolist()
        assert kept == naive_grid(*shape, budget)
        assert kept == sorted(set(kept))


def test_grid_leaves_no_quarter_empty() -> None:
    for budget in range(16, 257):
        kept = uniform_grid((16, 16), budget, CPU)
        quarter = kept // 16 // 8 * 2 + kept % 16 // 8
        counts = quarter.bincount(minlength=4)
        assert counts.max() - counts.min() <= 0.2 * budget + 2


@pytest.mark.parametrize("shape", [(16, 16), (5, 3), (1, 4)])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_stride_grid_equals_the_loop(shape: tuple[int, int], stride: int) -> None:
    height, width = shape
    expected = [
        r * width + c for r in range(height) for c in range(width) if r % stride == c % stride == 0
    ]
    assert stride_grid(shape, stride, CPU).tolist() == expected
    assert stride_grid_size(shape, stride) == len(expected)


def test_all_refuses_to_drop() -> None:
    with pytest.raises(SelectionError, match="set the budget to 16"):
        selector("all").select(SelectionInputs(1, (4, 4)), 5)
