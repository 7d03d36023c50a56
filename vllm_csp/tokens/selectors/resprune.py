"""Text-conditioned residual pivoting: ResPrune, with CDPruner as a special case."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionInputs
from vllm_csp.tokens.selectors.spec import SelectorSpec

# Residual energies below this share of the largest norm are float32 noise: the span is exhausted.
_NOISE = 1e-6


def text_relevance(
    features: Tensor,
    text: Tensor,
    text_mask: Tensor,
    pooling: Literal["max", "mean"] = "max",
    negatives: Literal["shift", "clamp"] = "shift",
) -> Tensor:
    """How much each image token resembles the words of the question: [B, N] float32 >= 0.

    features: [B, N, D]; text: [B, T, D]; text_mask: [B, T] bool. The cosine is pooled over the
    words; negative cosines, which no power may be taken of, are shifted, (1 + cos) / 2, or clamped
    to 1e-6. A request without words gets 1 for every token.
    Source: ResPrune (arXiv 2603.21105), eq. 13 for "max"; its handling of negatives is not stated.
    """
    unit = torch.nn.functional.normalize(features.float(), dim=2)
    words = torch.nn.functional.normalize(text.float(), dim=2)
    cosine = unit @ words.transpose(1, 2)
    mask = text_mask[:, None]
    if pooling == "max":
        pooled = cosine.masked_fill(~mask, -1.0).amax(dim=2)
    else:
        pooled = cosine.masked_fill(~mask, 0.0).sum(dim=2) / mask.sum(dim=2).clamp_min(1)
    relevance = (1 + pooled) / 2 if negatives == "shift" else pooled.clamp_min(1e-6)
    return torch.where(text_mask.any(dim=1, keepdim=True), relevance.clamp_min(0), 1.0)


def residual_pivots(features: Tensor, weights: Tensor, budget: int) -> Tensor:
    """Greedy subset by weighted residual energy, argmax_i weights_i * |v_i - P_S v_i|^2.

    features: [B, N, D]; weights: [B, N] >= 0. Returns [B, budget] int64, ascending. Runs as a
    pivoted Cholesky factorisation of the Gram matrix in float32: O(N^2 D + N budget^2) per request.
    Once the chosen tokens span all others, the rest are taken by lower index.
    """
    vectors = features.float()
    gram = vectors @ vectors.transpose(1, 2)
    energy = gram.diagonal(dim1=1, dim2=2).clone()
    batch, num_tokens = energy.shape
    floor = energy.amax(dim=1, keepdim=True) * _NOISE
    factor = torch.zeros(batch, num_tokens, budget, device=features.device)
    taken = torch.zeros(batch, num_tokens, dtype=torch.bool, device=features.device)
    picks = torch.empty(batch, budget, dtype=torch.int64, device=features.device)
    for step in range(budget):
        energy = torch.where(energy > floor, energy, 0.0)
        pick = (weights * energy).masked_fill(taken, -1.0).argmax(dim=1, keepdim=True)
        taken.scatter_(1, pick, True)
        picks[:, step : step + 1] = pick
        pivot = energy.gather(1, pick)
        row = pick[:, :, None].expand(-1, -1, num_tokens)
        known = pick[:, :, None].expand(-1, -1, budget)
        column = gram.gather(1, row)[:, 0] - (factor @ factor.gather(1, known).mT)[:, :, 0]
        column = torch.where(pivot > 0, column * pivot.clamp_min(1e-30).rsqrt(), 0.0)
        factor[:, :, step] = column
        energy = energy - column.square()
    return picks.sort(dim=1).values


class ResPrune(SelectorSpec):
    """Residual pivoting with weights relevance ** alpha.

    alpha 0 ignores the question (column-pivoted QR); alpha 2 with ``normalise`` is the greedy MAP
    of CDPruner's conditional determinantal point process. The paper's alpha and normalisation are
    not stated.
    Source: ResPrune (arXiv 2603.21105). ``text_embeddings`` are meant to be the question's nouns in
    the embedding table, or all its content words.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"image_features", "text_embeddings", "text_mask"})

    name: Literal["resprune"] = "resprune"
    alpha: float = Field(default=2.0, ge=0)
    normalise: bool = False
    pooling: Literal["max", "mean"] = "max"
    negatives: Literal["shift", "clamp"] = "shift"

    @property
    def depends_on_question(self) -> bool:
        """False only for alpha 0."""
        return self.alpha > 0

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        features = inputs.get("image_features", self.name).float()
        if self.alpha > 0:
            text = inputs.get("text_embeddings", self.name)
            mask = inputs.get("text_mask", self.name)
            relevance = text_relevance(features, text, mask, self.pooling, self.negatives)
            weights = relevance**self.alpha
        else:
            weights = torch.ones(features.shape[:2], device=features.device)
        if self.normalise:
            features = torch.nn.functional.normalize(features, dim=2)
        return residual_pivots(features, weights, budget)
