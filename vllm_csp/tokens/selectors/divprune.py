"""Max-min diversity: DivPrune, and k-center with a spatial term."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import Need, SelectionInputs
from vllm_csp.tokens.selectors.spec import SelectorSpec


def token_distances(features: Tensor, grid: tuple[int, int], spatial_weight: float) -> Tensor:
    """(1 - cosine) + spatial_weight * grid distance / grid diagonal: [B, N, N] float32.

    features: [B, N, D], N = rows * columns of ``grid``; the grid diagonal is that between opposite
    corner tokens.
    """
    unit = torch.nn.functional.normalize(features.float(), dim=2)
    distance: Tensor = 1 - unit @ unit.transpose(1, 2)
    if spatial_weight == 0:
        return distance
    height, width = grid
    token = torch.arange(height * width, device=features.device)
    place = torch.stack((token // width, token % width), dim=1).float()
    diagonal = max(((height - 1) ** 2 + (width - 1) ** 2) ** 0.5, 1.0)
    # Exact differences, not torch.cdist: its matrix-product path makes equal distances differ.
    apart = (place[:, None] - place).square().sum(dim=2).sqrt()
    return distance.add(apart, alpha=spatial_weight / diagonal)


def farthest_points(distance: Tensor, budget: int) -> Tensor:
    """Max-min greedy choice: [B, budget] int64, ascending, from distances [B, N, N].

    Starts at the token whose nearest neighbour is farthest, then adds the token farthest from all
    chosen ones. Source: DivPrune (CVPR 2025).
    """
    batch, num_tokens, _ = distance.shape
    own = torch.eye(num_tokens, dtype=torch.bool, device=distance.device)
    pick = distance.masked_fill(own, float("inf")).amin(dim=2).argmax(dim=1, keepdim=True)
    picks = torch.empty(batch, budget, dtype=torch.int64, device=distance.device)
    gap = torch.full_like(distance[:, 0], float("inf"))
    for step in range(budget):
        if step:
            pick = gap.argmax(dim=1, keepdim=True)
        picks[:, step : step + 1] = pick
        row = pick[:, :, None].expand(-1, -1, num_tokens)
        gap = torch.minimum(gap, distance.gather(1, row)[:, 0])
        gap = gap.scatter(1, pick, float("-inf"))
    return picks.sort(dim=1).values


class DivPrune(SelectorSpec):
    """Max-min diversity of the projected features.

    spatial_weight 0 is DivPrune (CVPR 2025); above 0 it is k-center with a coverage term, the idea
    of EVTP-IV (arXiv 2508.11886), whose weight is not stated.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"image_features"})

    name: Literal["divprune"] = "divprune"
    spatial_weight: float = Field(default=0.0, ge=0)

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64."""
        features = inputs.get("image_features", self.name)
        return farthest_points(token_distances(features, inputs.grid, self.spatial_weight), budget)
