"""The written-out attention and its supervised heads."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.training.attention import attention_mask, look_loss, written_out
from vllm_csp.training.packing import Packer
from vllm_csp.training.questions import Picture
from vllm_csp.training.shape import MiniShape

SHAPE = MiniShape(word_head=(0, 0), target_heads=((0, 1),))


def test_it_equals_torchs_attention_and_its_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 12, 32)
    owner = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, -1, -1]])
    mask = attention_mask(owner, prefix=5)
    output, weights = written_out(torch.nn.Module(), query, key, value, mask, scaling=0.2)
    expected = functional.scaled_dot_product_attention(query, key, value, mask, scale=0.2)
    assert torch.allclose(output.transpose(1, 2), expected, atol=1e-5)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 4, 12), atol=1e-5)


def test_looking_at_the_target_costs_nothing_and_looking_away_does(
    tokenizer: LisaTokenizer, picture: Picture
) -> None:
    word = picture.questions[0].text.split()[-1].strip("?.")
    labels = {word: picture.questions[0].masks[0]}
    shown = replace(picture, labels=labels, known=(word,))
    batch = Packer(tokenizer, [word]).pack([shown])
    rows = batch.segments.shape[1]
    at_target = torch.zeros(1, rows, 256)
    for row, grid in zip(batch.row, batch.grid.flatten(1), strict=True):
        at_target[0, row] = (grid > 0.2) / (grid > 0.2).sum()
    at_word = torch.zeros(1, rows, 256)
    for picture_of, row, number in batch.mentions:
        shares = batch.words[picture_of, number].flatten()
        at_word[0, row] = (shares > 0.2) / (shares > 0.2).sum()
    right = {(0, 0): at_word, (0, 1): at_target}
    assert len(batch.row) and look_loss(right, batch, SHAPE).abs() < 1e-2
    away = {head: torch.zeros_like(weights) for head, weights in right.items()}
    assert look_loss(away, batch, SHAPE) > 5
