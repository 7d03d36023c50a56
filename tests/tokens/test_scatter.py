"""Re-expansion equals a loop over tokens."""

from __future__ import annotations

import pytest
import torch

from vllm_csp.tokens.scatter import reactivate, representatives

GRIDS = [(4, 4), (3, 5), (1, 7)]


def naive_representative(kept: list[int], token: int, grid: tuple[int, int], rule: str) -> int:
    def apart(other: int) -> int:
        if rule == "index":
            return abs(token - other)
        width = grid[1]
        return (token // width - other // width) ** 2 + (token % width - other % width) ** 2

    distances = [apart(other) for other in kept]
    return distances.index(min(distances))


def draw(grid: tuple[int, int], count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    total = grid[0] * grid[1]
    picks = [torch.randperm(total, generator=generator)[:count] for _ in range(3)]
    return torch.stack(picks).sort(dim=1).values


@pytest.mark.parametrize("rule", ["grid", "index"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_representatives_are_nearest_ties_to_the_lower_index(grid, rule, count: int) -> None:
    kept = draw(grid, count)
    total = grid[0] * grid[1]
    expected = [
        [naive_representative(row, token, grid, rule) for token in range(total)]
        for row in kept.tolist()
    ]
    assert representatives(kept, grid, rule).tolist() == expected


@pytest.mark.parametrize("mode", ["embedding", "offset", "copy"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [1, 4, 7])
def test_reactivation_equals_the_loop(grid, mode, count: int) -> None:
    kept = draw(grid, count)
    total = grid[0] * grid[1]
    embeddings, hidden = torch.randn(3, total, 6), torch.randn(3, count, 6)
    found = reactivate(embeddings, kept, hidden, grid, mode)
    for b, row in enumerate(kept.tolist()):
        for token in range(total):
            r = naive_representative(row, token, grid, "grid")
            expected = {
                "embedding": embeddings[b, token],
                "offset": embeddings[b, token] + (hidden[b, r] - embeddings[b, row[r]]),
                "copy": hidden[b, r],
            }[mode]
            if token in row:
                expected = hidden[b, row.index(token)]
            assert torch.equal(found[b, token], expected)


@pytest.mark.parametrize("mode", ["embedding", "offset", "copy"])
def test_nothing_is_left_to_fill_when_all_are_kept(mode) -> None:
    hidden = torch.randn(2, 12, 4)
    kept = torch.arange(12).repeat(2, 1)
    assert torch.equal(reactivate(torch.randn(2, 12, 4), kept, hidden, (3, 4), mode), hidden)
