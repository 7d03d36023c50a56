"""Superpixels of the token grid: the instances of Seg-First where no segmenter is at hand."""

from __future__ import annotations

import torch
from torch import Tensor

COUNT = 16
ITERATIONS = 5
# Weight of grid distance against colour distance; 1 means the whole image's extent weighs as much
# as the whole colour range.
COMPACTNESS = 1.0


def token_superpixels(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Superpixel number 0..COUNT-1 of each image token.

    pixels: uint8 [B, S, S, 3], what the vision tower sees; grid: (rows, columns) of its tokens.
    Returns int64 [B, rows * columns]. k-means over mean colour and place of the tokens, from
    centres on an even grid, as SLIC does with pixels (Achanta et al. 2012); deterministic, no host
    synchronisation.
    """
    features = _features(pixels, grid)
    centres = features[:, _even_centres(grid, features.device)]
    labels = torch.zeros(features.shape[:2], dtype=torch.int64, device=features.device)
    for _ in range(ITERATIONS):
        labels = torch.cdist(features, centres).argmin(dim=2)
        members = torch.nn.functional.one_hot(labels, centres.shape[1]).float()
        size = members.sum(dim=1)[..., None]
        means = members.transpose(1, 2) @ features / size.clamp(min=1)
        centres = torch.where(size > 0, means, centres)
    return labels


def _features(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    rows, columns = grid
    colour = torch.nn.functional.adaptive_avg_pool2d(
        pixels.permute(0, 3, 1, 2).float() / 255, (rows, columns)
    )
    y = torch.linspace(0, 1, rows, device=pixels.device)[:, None].expand(rows, columns)
    x = torch.linspace(0, 1, columns, device=pixels.device).expand(rows, columns)
    place = torch.stack([y, x]).expand(len(pixels), -1, -1, -1) * COMPACTNESS
    return torch.cat([colour, place], dim=1).flatten(2).transpose(1, 2)


def _even_centres(grid: tuple[int, int], device: torch.device) -> Tensor:
    rows, columns = grid
    side = round(COUNT**0.5)
    y = ((torch.arange(side, device=device) + 0.5) * rows / side).long()
    x = ((torch.arange(side, device=device) + 0.5) * columns / side).long()
    return (y[:, None] * columns + x).flatten()
