"""PruMerge and PruMerge+ equal loops over tokens."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_csp.tokens.selectors import SelectionError, SelectionInputs, selector
from vllm_csp.tokens.selectors.prumerge import merge_neighbours


def naive_plus(attention: list[float], budget: int) -> list[int]:
    total = len(attention)
    ranked = sorted(range(total), key=lambda i: (-attention[i], i))
    kept = ranked[: math.ceil(budget / 4)]
    room = budget - len(kept)
    if room:
        stride = math.ceil(total / room)
        kept += [i for i in range(0, total, stride) if i not in kept]
    kept += [i for i in ranked if i not in kept]
    return sorted(kept[:budget])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("total", "budget"), [(256, 64), (15, 1), (15, 2), (15, 9), (7, 6)])
def test_plus_equals_the_loop(total: int, budget: int, ties: bool) -> None:
    attention = torch.rand(4, total, generator=torch.Generator().manual_seed(0))
    if ties:
        attention = (attention * 2).round()
    kept = selector("prumerge+").select(
        SelectionInputs(4, (1, total), cls_attention=attention), budget
    )
    assert kept.tolist() == [naive_plus(row, budget) for row in attention.tolist()]


def test_plus_always_keeps_the_most_attended_quarter() -> None:
    attention = torch.rand(3, 256, generator=torch.Generator().manual_seed(1))
    given = SelectionInputs(3, (16, 16), cls_attention=attention)
    plus, top = selector("prumerge+").select(given, 64), selector("prumerge").select(given, 16)
    for more, few in zip(plus.tolist(), top.tolist(), strict=True):
        assert set(few) <= set(more)


@pytest.mark.parametrize("neighbours", [1, 3, 32])
def test_merging_equals_the_loop(neighbours: int) -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 12, 4, generator=generator)
    keys = torch.randn(2, 12, 5, generator=generator)
    attention = torch.rand(2, 12, generator=generator)
    selected = torch.tensor([[0, 5, 11], [2, 3, 4]])
    found = merge_neighbours(features, attention, keys, selected, neighbours)
    for b in range(2):
        for place, i in enumerate(selected[b].tolist()):
            cosine = {
                j: torch.cosine_similarity(keys[b, i], keys[b, j], dim=0).item()
                for j in range(12)
                if j != i
            }
            near = sorted(cosine, key=lambda j: -cosine[j])[:neighbours]
            expected = features[b, i] + sum(attention[b, j] * features[b, j] for j in near)
            torch.testing.assert_close(found[b, place], expected, atol=1e-5, rtol=1e-5)


def test_merge_is_offered_only_when_asked_for_and_keeps_positions() -> None:
    generator = torch.Generator().manual_seed(3)
    given = SelectionInputs(
        1,
        (3, 4),
        image_features=torch.randn(1, 12, 4, generator=generator).bfloat16(),
        key_features=torch.randn(1, 12, 4, generator=generator),
        cls_attention=torch.rand(1, 12, generator=generator),
    )
    plain, merging = selector("prumerge+"), selector("prumerge+", merge_dropped=True)
    assert (plain.merges_features, merging.merges_features) == (False, True)
    kept = merging.select(given, 5)
    assert kept.tolist() == plain.select(given, 5).tolist()
    merged = merging.merge(given, kept)
    assert (merged.shape, merged.dtype) == ((1, 5, 4), torch.bfloat16)
    with pytest.raises(SelectionError, match="does not merge"):
        selector("grid").merge(given, kept)
