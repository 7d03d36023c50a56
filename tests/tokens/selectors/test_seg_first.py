"""Seg-First: quotas of the paper, even sampling, overflow and shortfall."""

from __future__ import annotations

import pytest
import torch

from vllm_csp.tokens.selectors import SelectionInputs, selector
from vllm_csp.tokens.selectors.seg_first import morton_order

CPU = torch.device("cpu")


def z_order(height: int, width: int) -> list[int]:
    def code(token: int) -> int:
        row, column = divmod(token, width)
        bits = [(column >> b & 1) | (row >> b & 1) << 1 for b in range(10)]
        return sum(pair << (2 * b) for b, pair in enumerate(bits))

    return sorted(range(height * width), key=code)


def evenly(members: list[int], count: int) -> list[int]:
    n = len(members)
    return [m for t, m in enumerate(members) if (t + 1) * count // n > t * count // n]


def naive(masks: list[list[bool]], grid: tuple[int, int], budget: int, background: bool) -> list:
    total = grid[0] * grid[1]
    order = z_order(*grid)
    owner: dict[int, int] = {}
    for token in range(total):
        for i, mask in enumerate(masks):
            if mask[token] and token not in owner:
                owner[token] = i
        if background and token not in owner:
            owner[token] = len(masks)
    members = [[t for t in order if owner.get(t) == i] for i in range(len(masks) + 1)]
    area = sum(len(m) for m in members)
    samples = []
    for group in members:
        if group:
            quota = min(max(1, budget * len(group) // area), len(group))
            samples += [(turn, order.index(t), t) for turn, t in enumerate(evenly(group, quota))]
    kept = [t for _, _, t in sorted(samples)[:budget]]
    rest = [t for t in order if t not in [s[2] for s in samples]]
    if len(kept) < budget:
        kept += evenly(rest, budget - len(kept))
    return sorted(kept)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (16, 16)])
def test_choice_equals_the_loop(grid: tuple[int, int], density: float, background: bool) -> None:
    total = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(total)
    masks = torch.rand(3, 5, total, generator=generator) < density
    given = SelectionInputs(3, grid, instance_masks=masks)
    for budget in (1, 3, total // 4, total - 1):
        kept = selector("seg_first", background=background).select(given, budget)
        expected = [naive(m, grid, budget, background) for m in masks.tolist()]
        assert kept.tolist() == expected


def test_quotas_follow_the_papers_formula() -> None:
    masks = torch.zeros(1, 3, 256, dtype=torch.bool)
    for index, (first, last) in enumerate([(0, 150), (150, 197), (200, 203)]):
        masks[0, index, first:last] = True
    kept = selector("seg_first").select(SelectionInputs(1, (16, 16), instance_masks=masks), 64)
    counts = [int(masks[0, i, kept[0]].sum()) for i in range(3)]
    assert counts == [48, 15, 1]  # max(1, floor(64 * area / 200)), areas 150, 47, 3


def test_more_instances_than_budget_give_one_token_each_until_it_is_spent() -> None:
    masks = torch.eye(16, dtype=torch.bool)[None, :9]
    kept = selector("seg_first").select(SelectionInputs(1, (4, 4), instance_masks=masks), 4)
    assert set(kept[0].tolist()) <= set(range(9))


def test_an_empty_image_is_covered_evenly() -> None:
    for masks in (torch.zeros(1, 0, 256), torch.zeros(1, 4, 256)):
        given = SelectionInputs(1, (16, 16), instance_masks=masks.bool())
        kept = selector("seg_first").select(given, 64)[0]
        cells = kept // 32 * 8 + kept % 16 // 2
        assert cells.unique().numel() == 64


@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (1, 9), (16, 16)])
def test_the_curve_is_z_order(grid: tuple[int, int]) -> None:
    assert morton_order(grid, CPU).tolist() == z_order(*grid)
