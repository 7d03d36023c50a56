"""Attention scores and the choices made of them."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_csp.tokens.selectors import (
    SelectionError,
    SelectionInputs,
    readout_attention_scores,
    selector,
    spread_scores,
)


def naive_scores(query, keys, mask, image, softmax: str) -> list[list[float]]:
    """[B][I] from nested lists, one head and one key at a time."""
    out = []
    for b in range(len(query)):
        heads, kv_heads, width = len(query[b]), len(keys[b][0]), len(query[b][0])
        total = [0.0] * len(image[b])
        for head in range(heads):
            kv = head * kv_heads // heads
            logit = {
                s: sum(query[b][head][i] * keys[b][s][kv][i] for i in range(width))
                / math.sqrt(width)
                for s in range(len(keys[b]))
                if mask[b][s]
            }
            over = logit if softmax == "all_keys" else {s: logit[s] for s in image[b]}
            norm = sum(math.exp(value) for value in over.values())
            for place, s in enumerate(image[b]):
                total[place] += math.exp(logit[s]) / norm / heads
        out.append(total)
    return out


@pytest.mark.parametrize("softmax", ["all_keys", "image_keys"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_readout_scores_equal_the_loop(softmax, heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(3, heads, 8, generator=generator)
    keys = torch.randn(3, 11, kv_heads, 8, generator=generator)
    mask = torch.arange(11) < torch.tensor([[11], [9], [7]])
    image = torch.tensor([[2, 3, 4, 5], [0, 1, 2, 3], [1, 4, 5, 6]])
    found = readout_attention_scores(query, keys, mask, image, softmax=softmax)
    expected = naive_scores(*(t.tolist() for t in (query, keys, mask, image)), softmax)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_readout_scores_equal_full_attention() -> None:
    generator = torch.Generator().manual_seed(2)
    query, keys = (torch.randn(1, 4, 9, 16, generator=generator) for _ in range(2))
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    logits = (query @ keys.mT / 4).masked_fill(~causal, -torch.inf)
    expected = logits.softmax(-1)[0, :, 6, 2:6].mean(0)
    found = readout_attention_scores(
        query[:, :, 6], keys.transpose(1, 2), causal[6][None], torch.arange(2, 6)[None]
    )
    torch.testing.assert_close(found[0], expected)


def test_scores_are_computed_in_float32_and_take_a_scale() -> None:
    query, keys = torch.ones(1, 1, 4, dtype=torch.bfloat16), torch.ones(1, 2, 1, 4).bfloat16()
    keys[0, 1] = 0
    mask = torch.ones(1, 2, dtype=torch.bool)
    found = readout_attention_scores(query, keys, mask, torch.tensor([[0]]), scale=0.25)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(math.e / (math.e + 1))


def top(scores: list[float], allowed: set[int], count: int) -> list[int]:
    return sorted(sorted(allowed, key=lambda i: (-scores[i], i))[:count])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("budget", [1, 4, 14])
def test_cls_and_attention_keep_the_highest(budget: int, ties: bool) -> None:
    scores = torch.rand(5, 15, generator=torch.Generator().manual_seed(3))
    if ties:
        scores = (scores * 3).round()
    given = SelectionInputs(5, (3, 5), cls_attention=scores, readout_scores=scores)
    expected = [top(row, set(range(15)), budget) for row in scores.tolist()]
    assert selector("cls").select(given, budget).tolist() == expected
    assert selector("attention").select(given, budget).tolist() == expected


@pytest.mark.parametrize("budget", [1, 3, 6])
def test_attention_chooses_among_the_previous_stage_only(budget: int) -> None:
    generator = torch.Generator().manual_seed(4)
    previous = torch.stack([torch.randperm(15, generator=generator)[:6] for _ in range(4)])
    previous = previous.sort(dim=1).values
    scores = torch.rand(4, 6, generator=generator)
    spread = spread_scores(scores, previous, 15)
    assert spread.isinf().sum() == 4 * 9
    given = SelectionInputs(4, (3, 5), readout_scores=spread, previous=previous)
    expected = [
        top(row, set(p), budget) for row, p in zip(spread.tolist(), previous.tolist(), strict=True)
    ]
    assert selector("attention").select(given, budget).tolist() == expected


@pytest.mark.parametrize("grid", [(7, 7), (5, 8), (1, 9)])
@pytest.mark.parametrize("extra", [0, 1, 4])
def test_feather_keeps_its_grid_and_the_best_others(grid: tuple[int, int], extra: int) -> None:
    total = grid[0] * grid[1]
    scores = torch.rand(3, total, generator=torch.Generator().manual_seed(5))
    always = {r * grid[1] + c for r in range(0, grid[0], 3) for c in range(0, grid[1], 3)}
    given = SelectionInputs(3, grid, readout_scores=scores)
    kept = selector("feather").select(given, len(always) + extra)
    for row, values in zip(kept.tolist(), scores.tolist(), strict=True):
        assert row == sorted(always | set(top(values, set(range(total)) - always, extra)))


def test_feather_refuses_a_budget_below_its_grid() -> None:
    given = SelectionInputs(1, (7, 7), readout_scores=torch.rand(1, 49))
    with pytest.raises(SelectionError, match="raise the budget to 9 or the stride"):
        selector("feather").select(given, 8)


def test_feather_takes_no_grid_token_that_the_previous_stage_dropped() -> None:
    previous = torch.tensor([[1, 2, 3, 8, 9, 10, 12, 13, 15, 20, 21, 22, 30]])
    scores = spread_scores(
        torch.rand(1, 13, generator=torch.Generator().manual_seed(6)), previous, 49
    )
    given = SelectionInputs(1, (7, 7), readout_scores=scores, previous=previous)
    kept = set(selector("feather").select(given, 10)[0].tolist())
    assert kept <= set(previous[0].tolist())
    assert {3, 21} <= kept
