"""Random choices depend on the seed alone and are uniform."""

from __future__ import annotations

import torch

from vllm_csp.tokens.selectors import SelectionInputs, selector
from vllm_csp.tokens.selectors.random import random_keys

M = 0xFFFFFFFF


def mix(word: int) -> int:
    for _ in range(2):
        word = (word ^ word >> 16) * 0x45D9F3B & M
    return word ^ word >> 16


def naive_keys(seed: int, total: int) -> list[int]:
    seed %= 2**64
    start = mix(seed >> 32 ^ mix(seed & M))
    return [mix(mix(i * 0x9E3779B9 & M) ^ start) for i in range(1, total + 1)]


def test_keys_equal_unbounded_integer_arithmetic() -> None:
    seeds = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 123456789012345]
    keys = random_keys(torch.tensor(seeds), 40)
    assert keys.tolist() == [naive_keys(seed, 40) for seed in seeds]


def test_the_choice_is_the_largest_keys() -> None:
    kept = selector("random").select(SelectionInputs(1, (5, 5), seeds=torch.tensor([9])), 7)
    keys = naive_keys(9, 25)
    assert kept[0].tolist() == sorted(sorted(range(25), key=lambda i: (-keys[i], i))[:7])


def test_every_token_and_every_pair_is_equally_likely() -> None:
    given = SelectionInputs(20000, (4, 4), seeds=torch.arange(20000))
    kept = selector("random").select(given, 4)
    chosen = torch.zeros(20000, 16).scatter_(1, kept, 1.0)
    torch.testing.assert_close(chosen.mean(0), torch.full((16,), 0.25), atol=0.015, rtol=0)
    pairs = (chosen.T @ chosen / 20000)[~torch.eye(16, dtype=torch.bool)]
    torch.testing.assert_close(pairs, torch.full_like(pairs, 4 * 3 / 240), atol=0.01, rtol=0)


def test_high_and_low_words_of_the_seed_both_count() -> None:
    seeds = torch.tensor([5, 5 + (1 << 32), 6])
    kept = selector("random").select(SelectionInputs(3, (16, 16), seeds=seeds), 16)
    assert len({tuple(row) for row in kept.tolist()}) == 3
