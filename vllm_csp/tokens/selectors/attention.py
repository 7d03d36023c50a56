"""Choices by attention: the vision tower's CLS row, or one row of the language model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vllm_csp.tokens.selectors.grid import stride_grid, stride_grid_size
from vllm_csp.tokens.selectors.inputs import Need, SelectionError, SelectionInputs
from vllm_csp.tokens.selectors.ranking import keep_best, membership
from vllm_csp.tokens.selectors.spec import ScoreSpec, SelectorSpec


def readout_attention_scores(
    query: Tensor,
    keys: Tensor,
    key_mask: Tensor,
    image_columns: Tensor,
    *,
    scale: float | None = None,
    softmax: Literal["all_keys", "image_keys"] = "all_keys",
) -> Tensor:
    """Head mean of one query row's attention, at the image keys.

    query: [B, H, d]; keys: [B, S, Hkv, d] with H a multiple of Hkv (grouped queries);
    key_mask: [B, S] bool, the keys the row may see; image_columns: [B, I] int64, columns of
    ``keys`` that are image tokens; scale: 1 / sqrt(d) by default. Pass queries and keys from before
    the rotary embedding for a RoPE-free score. Returns [B, I] float32.

    Only B * H * S values are formed, so the layer itself can keep its fused attention kernel.
    Source: score of LVLM_CSP's and FastV's pruning (arXiv 2504.10854, ECCV 2024) with "all_keys",
    of FEATHER (arXiv 2412.13180) with "image_keys".
    """
    batch, heads, width = query.shape
    kv_heads = keys.shape[2]
    grouped = query.float().reshape(batch, kv_heads, heads // kv_heads, width)
    logits = torch.einsum("bkgd,bskd->bkgs", grouped, keys.float())
    logits = logits * (width**-0.5 if scale is None else scale)
    if softmax == "image_keys":
        columns = image_columns[:, None, None].expand(*logits.shape[:3], -1)
        return logits.gather(3, columns).softmax(dim=3).mean(dim=(1, 2))
    logits = logits.masked_fill(~key_mask[:, None, None], float("-inf"))
    return logits.softmax(dim=3).mean(dim=(1, 2)).gather(1, image_columns)


def spread_scores(scores: Tensor, tokens: Tensor, num_tokens: int) -> Tensor:
    """Scores [B, I] of the tokens with original indices [B, I] as [B, num_tokens], rest -inf."""
    spread = scores.new_full((scores.shape[0], num_tokens), float("-inf"))
    return spread.scatter_(1, tokens, scores)


def _absent(inputs: SelectionInputs) -> Tensor:
    """Tokens that took no part in the previous stage: [B, N] bool."""
    shape = (inputs.batch_size, inputs.num_image_tokens)
    if inputs.previous is None:
        return torch.zeros(shape, dtype=torch.bool, device=inputs.device)
    return ~membership(inputs.previous, inputs.num_image_tokens)


class Cls(SelectorSpec):
    """The tokens the vision tower's CLS token attends to most.

    Source: LVLM_CSP (arXiv 2504.10854), "CLS attention" clustering. Layer and head reduction are
    not stated there; ``cls_attention`` is expected as the head mean of the layer the features
    come from (the penultimate one for LISA).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention"})

    name: Literal["cls"] = "cls"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        return keep_best(inputs.get("cls_attention", self.name), budget)


class _RowScored(SelectorSpec):
    """What selectors by a language-model row have in common."""

    needs: ClassVar[frozenset[Need]] = frozenset({"readout_scores"})

    score: ScoreSpec = ScoreSpec()

    @property
    def depends_on_question(self) -> bool:
        """True: the row is part of the question."""
        return True

    @property
    def attention_score(self) -> ScoreSpec:
        """The attention to give as ``readout_scores``."""
        return self.score


class Attention(_RowScored):
    """The tokens that one row of the language model attends to most, among the previous stage's.

    With score.row "readout" it is the [SEG]-guided pruning of LVLM_CSP (arXiv 2504.10854), with
    "last" FastV (ECCV 2024, pkunlp-icler/FastV).
    """

    name: Literal["attention"] = "attention"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        scores = inputs.get("readout_scores", self.name)
        return keep_best(scores, budget, _absent(inputs).long())


class Feather(_RowScored):
    """The best-scored tokens together with a coarse grid that is always kept.

    The original joins the top (1 - R) N tokens with the grid, which has no fixed size; here the
    grid is kept and the rest of the budget goes to the best of the other tokens.
    Source: FEATHER (arXiv 2412.13180, markendo/FEATHER), first pruning layer.
    """

    name: Literal["feather"] = "feather"
    score: ScoreSpec = ScoreSpec(row="last", softmax="image_keys", rope=False)
    stride: int = Field(default=3, ge=1)

    def check(self, budget: int, grid: tuple[int, int]) -> None:
        """Raise SelectionError when the grid alone exceeds the budget."""
        size = stride_grid_size(grid, self.stride)
        if budget < size:
            raise SelectionError(
                f"selector 'feather' always keeps the {size} tokens of its stride-{self.stride} "
                f"grid, the budget is {budget}; raise the budget to {size} or the stride"
            )

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        scores = inputs.get("readout_scores", self.name)
        tier = torch.ones(inputs.num_image_tokens, dtype=torch.int64, device=inputs.device)
        tier = tier.index_fill_(0, stride_grid(inputs.grid, self.stride, inputs.device), 0)
        return keep_best(scores, budget, tier + 2 * _absent(inputs).long())
