"""PruMerge and PruMerge+ at a fixed count, original positions kept."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionInputs
from vllm_csp.tokens.selectors.ranking import keep_best, membership
from vllm_csp.tokens.selectors.spec import SelectorSpec


def prumerge_plus(attention: Tensor, budget: int) -> Tensor:
    """A quarter of the budget by CLS attention, the rest on an even stride over the sequence.

    attention: [B, N]. Returns [B, budget] int64, ascending. Where grid and top tokens coincide, or
    the stride leaves room, the next best tokens by attention fill the budget.
    Source: LLaVA-PruMerge (ICCV 2025, 42Shawn/LLaVA-PruMerge), "+" variant: there the top count
    is adaptive (interquartile-range outliers) and the whole is about four times as many.
    """
    num_tokens = attention.shape[1]
    top = -(-budget // 4)
    tier = torch.full_like(attention, 2, dtype=torch.int64)
    if budget > top:
        stride = -(-num_tokens // (budget - top))
        tier[:, ::stride] = 1
    best = membership(keep_best(attention, top), num_tokens)
    return keep_best(attention, budget, tier.masked_fill(best, 0))


def merge_neighbours(
    features: Tensor, attention: Tensor, keys: Tensor, selected: Tensor, neighbours: int
) -> Tensor:
    """x_i + sum over the nearest other tokens j of a_j x_j, for each kept token i.

    features: [B, N, D] original features; attention: [B, N] CLS attention, used as it is (not
    renormalised over the neighbours, as in the original); keys: [B, N, Dk], compared by cosine
    among all tokens, kept or not; selected: [B, K] int64; neighbours: 32 in the original, all
    others where N is smaller. Returns [B, K, D] in the dtype of ``features``.

    The original merges before the projector. On the output of an affine projector the result
    differs by (sum a_j) times its bias; give the tower's features to reproduce the original.
    """
    batch, num_tokens, width = features.shape
    unit = torch.nn.functional.normalize(keys.float(), dim=2)
    picked = unit.gather(1, selected[:, :, None].expand(-1, -1, unit.shape[2]))
    cosine = picked @ unit.transpose(1, 2)
    cosine = cosine.scatter(2, selected[:, :, None], float("-inf"))
    count = min(neighbours, num_tokens - 1)
    nearest = torch.sort(cosine, dim=2, descending=True, stable=True).indices[:, :, :count]
    kept = selected.shape[1]
    weights = torch.zeros(batch, kept, num_tokens, dtype=torch.float32, device=features.device)
    weights.scatter_(2, nearest, attention.float()[:, None].expand(-1, kept, -1).gather(2, nearest))
    own = features.gather(1, selected[:, :, None].expand(-1, -1, width)).float()
    return (own + weights @ features.float()).to(features.dtype)


class _Merging(SelectorSpec):
    """What both variants have in common: CLS attention, and the merge if ``merge_dropped``.

    The original's extra token, the weighted sum of all dropped ones, has no position in the image
    and is left out. ``cls_attention`` in the original is the full-width softmax of the last CLIP
    layer, ``key_features`` that layer's keys.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention"})

    merge_dropped: bool = False
    neighbours: int = Field(default=32, ge=1)

    @property
    def merges_features(self) -> bool:
        """Whether ``merge`` replaces the features of the kept tokens."""
        return self.merge_dropped

    def merge(self, inputs: SelectionInputs, selected: Tensor) -> Tensor:
        """``merge_neighbours`` of ``selected`` [B, K]: [B, K, D]; also needs features and keys."""
        return merge_neighbours(
            inputs.get("image_features", self.name),
            inputs.get("cls_attention", self.name),
            inputs.get("key_features", self.name),
            selected,
            self.neighbours,
        )


class PruMerge(_Merging):
    """The top tokens by CLS attention.

    Source: LLaVA-PruMerge (ICCV 2025, 42Shawn/LLaVA-PruMerge), its adaptive count made a budget.
    """

    name: Literal["prumerge"] = "prumerge"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        return keep_best(inputs.get("cls_attention", self.name), budget)


class PruMergePlus(_Merging):
    """The top tokens by CLS attention with spatial samples added (``prumerge_plus``)."""

    name: Literal["prumerge+"] = "prumerge+"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        return prumerge_plus(inputs.get("cls_attention", self.name), budget)
