"""What image tokens hold when they come back after a stage without them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ScatterMode = Literal["embedding", "offset", "copy"]
RepresentativeRule = Literal["grid", "index"]


def representatives(
    kept: Tensor, grid: tuple[int, int], rule: RepresentativeRule = "grid"
) -> Tensor:
    """The nearest kept token of every image token, as a position on the kept axis.

    kept: [B, K] int64, ascending original indices on a grid of (rows, columns). "grid" measures
    the Euclidean distance on the grid, "index" the distance in the sequence; equal distances go to
    the lower index. Returns [B, N] int64 in 0..K-1.
    """
    height, width = grid
    token = torch.arange(height * width, device=kept.device)
    if rule == "index":
        distance = (token[None, :, None] - kept[:, None]).abs()
    else:
        rows = (token // width)[None, :, None] - (kept // width)[:, None]
        columns = (token % width)[None, :, None] - (kept % width)[:, None]
        distance = rows.square() + columns.square()
    return distance.argmin(dim=2)


def reactivate(
    embeddings: Tensor,
    kept: Tensor,
    hidden: Tensor,
    grid: tuple[int, int],
    mode: ScatterMode = "copy",
    rule: RepresentativeRule = "grid",
) -> Tensor:
    """Hidden states of all image tokens at a re-expansion.

    embeddings: [B, N, D] projector outputs; kept: [B, K] int64, ascending; hidden: [B, K, D], the
    residual stream (hidden + residual where they are kept apart) of the kept tokens. Kept tokens
    hold ``hidden``; the others enter with their embedding ("embedding"), with the embedding moved
    by what the layers changed in their representative ("offset"), or with the representative's
    hidden state ("copy"). Returns [B, N, D].

    Source: LVLM_CSP (arXiv 2504.10854) leaves it open; "offset" is SwiftVLM's restoration
    (arXiv 2602.03134), with the nearest token instead of a cosine group.
    """
    width = embeddings.shape[2]
    at_kept = kept[:, :, None].expand(-1, -1, width)
    if mode == "embedding":
        return embeddings.scatter(1, at_kept, hidden)
    nearest = representatives(kept, grid, rule)[:, :, None].expand(-1, -1, width)
    if mode == "copy":
        return hidden.gather(1, nearest)
    moved = (hidden - embeddings.gather(1, at_kept)).gather(1, nearest)
    return (embeddings + moved).scatter(1, at_kept, hidden)
