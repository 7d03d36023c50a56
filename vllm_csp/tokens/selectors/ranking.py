"""Fixed-size choices by rank, equal on every device and for every order of equal scores."""

from __future__ import annotations

import torch
from torch import Tensor


def descending_rank(scores: Tensor) -> Tensor:
    """Rank of each token by score, best 0, equal scores by lower index.

    scores: [B, N], any real dtype. Returns [B, N] int64, a permutation of 0..N-1 per row.
    """
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def keep_best(scores: Tensor, budget: int, tier: Tensor | None = None) -> Tensor:
    """Indices of the ``budget`` best tokens: lower tier first, then higher score, then lower index.

    scores: [B, N]; tier: [B, N] int64 or None (one tier). Returns [B, budget] int64, ascending.
    ``torch.topk`` leaves the order of ties open, hence the stable sort.
    """
    if tier is None:
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    else:
        order = torch.argsort(tier * scores.shape[1] + descending_rank(scores), dim=1)
    return order[:, :budget].sort(dim=1).values


def membership(indices: Tensor, num_tokens: int) -> Tensor:
    """Indices [B, K] int64 as a mask [B, num_tokens] bool."""
    shape = (indices.shape[0], num_tokens)
    return torch.zeros(shape, dtype=torch.bool, device=indices.device).scatter_(1, indices, True)
