"""DivPrune equals a max-min loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_csp.tokens.selectors import SelectionInputs, selector
from vllm_csp.tokens.selectors.divprune import farthest_points


def naive_distance(features, grid: tuple[int, int], weight: float) -> list[list[float]]:
    def apart(i: int, j: int) -> float:
        dy, dx = i // grid[1] - j // grid[1], i % grid[1] - j % grid[1]
        diagonal = math.hypot(grid[0] - 1, grid[1] - 1) or 1.0
        return math.hypot(dy, dx) / max(diagonal, 1.0)

    n = len(features)
    cosine = torch.nn.functional.cosine_similarity
    return [
        [
            1 - cosine(features[i], features[j], dim=0).item() + weight * apart(i, j)
            for j in range(n)
        ]
        for i in range(n)
    ]


def naive_farthest(distance: list[list[float]], budget: int) -> list[int]:
    n = len(distance)
    nearest = [min(distance[i][j] for j in range(n) if j != i) for i in range(n)]
    kept = [nearest.index(max(nearest))]
    while len(kept) < budget:
        gaps = [-1.0 if i in kept else min(distance[i][j] for j in kept) for i in range(n)]
        kept.append(gaps.index(max(gaps)))
    return sorted(kept)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 8)])
@pytest.mark.parametrize("budget", [1, 2, 6])
def test_choice_equals_the_loop(weight: float, grid: tuple[int, int], budget: int) -> None:
    features = torch.randn(2, grid[0] * grid[1], 6, generator=torch.Generator().manual_seed(0))
    rule = selector("divprune", spatial_weight=weight)
    kept = rule.select(SelectionInputs(2, grid, image_features=features), budget)
    for b in range(2):
        assert kept[b].tolist() == naive_farthest(naive_distance(features[b], grid, weight), budget)


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_ties_go_to_the_lower_index(budget: int) -> None:
    generator = torch.Generator().manual_seed(1)
    distance = torch.randint(0, 3, (4, 8, 8), generator=generator).float()
    distance = distance + distance.mT
    found = farthest_points(distance, budget)
    assert found.tolist() == [naive_farthest(d, budget) for d in distance.tolist()]


def test_space_alone_spreads_over_the_image() -> None:
    rule = selector("divprune", spatial_weight=1.0)
    given = SelectionInputs(1, (5, 5), image_features=torch.ones(1, 25, 3))
    assert {0, 24} < set(rule.select(given, 4)[0].tolist())
