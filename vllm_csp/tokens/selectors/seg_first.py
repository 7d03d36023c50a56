"""Seg-First: a quota of tokens for each instance of a light segmenter."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionInputs
from vllm_csp.tokens.selectors.spec import SelectorSpec


def morton_order(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Tokens of a grid along the Z-order curve: [N] int64.

    Even steps along it are even in both directions; even steps in reading order are not (every
    fourth of 16 x 16 tokens makes four columns).
    """
    height, width = grid
    token = torch.arange(height * width, device=device)
    row, column = token // width, token % width
    code = torch.zeros_like(token)
    for bit in range(max(height, width).bit_length()):
        code |= (column >> bit & 1) << (2 * bit) | (row >> bit & 1) << (2 * bit + 1)
    return code.argsort()


def disjoint(masks: Tensor) -> Tensor:
    """Masks [B, M, N] bool with each token left to the first instance that has it."""
    return masks & (masks.long().cumsum(dim=1) == 1)


def instance_quotas(masks: Tensor, budget: int) -> Tensor:
    """max(1, floor(budget * area_i / sum of areas)), at most area_i, 0 for empty: [B, M] int64.

    masks: [B, M, N] bool, disjoint. Source: LVLM_CSP (arXiv 2504.10854), "Seg-First".
    """
    area = masks.sum(dim=2)
    total = area.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.minimum((budget * area // total).clamp_min(1), area)


def even_samples(masks: Tensor, quotas: Tensor) -> tuple[Tensor, Tensor]:
    """Every (area / quota)-th member of each mask.

    masks: [B, M, N] bool; quotas: [B, M] int64 <= area. Returns the sampled members [B, M, N] bool
    (exactly ``quotas`` many) and each member's place among its instance's samples [B, M, N] int64.
    """
    place = masks.long().cumsum(dim=2) - 1
    area = masks.sum(dim=2, keepdim=True).clamp_min(1)
    ordinal = place * quotas[:, :, None] // area
    sampled = masks & ((place + 1) * quotas[:, :, None] // area > ordinal)
    return sampled, ordinal


def seg_first(masks: Tensor, order: Tensor, budget: int) -> Tensor:
    """Instance samples by quota, then an even spread over what is left.

    masks: [B, M, N] bool (overlaps go to the earlier instance); order: [N] int64, the curve along
    which "even" is meant. Returns [B, budget] int64, ascending. If max(1, .) makes the quotas
    exceed the budget, the later samples of the larger instances give way; if floors leave tokens
    over, they are spread evenly over the tokens not yet taken.
    """
    owned = disjoint(masks[:, :, order])
    batch, _, num_tokens = owned.shape
    sampled, ordinal = even_samples(owned, instance_quotas(owned, budget))
    taken = sampled.any(dim=1)
    round_of = (ordinal * sampled).sum(dim=1)
    free = (~taken)[:, None]
    missing = (budget - taken.sum(dim=1, keepdim=True)).clamp_min(0)
    filled = even_samples(free, missing)[0][:, 0]
    rank = torch.where(taken, round_of, torch.where(filled, num_tokens, num_tokens + 1))
    chosen = torch.argsort(rank, dim=1, stable=True)[:, :budget]
    return order.expand(batch, -1).gather(1, chosen).sort(dim=1).values


class SegFirst(SelectorSpec):
    """Tokens by instance area (``seg_first``).

    background: count the tokens outside all instances as one more instance. The paper's formula
        does not; then they only receive what the instances leave over.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"instance_masks"})

    name: Literal["seg_first"] = "seg_first"
    background: bool = False

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        masks = inputs.get("instance_masks", self.name).bool()
        if self.background:
            masks = torch.cat((masks, ~masks.any(dim=1, keepdim=True)), dim=1)
        return seg_first(masks, morton_order(inputs.grid, inputs.device), budget)
