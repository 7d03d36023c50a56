"""LISA's losses: text cross-entropy 1, mask BCE 2, Dice 0.5 (`train_ds.py` there)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vllm_csp.training.questions import IGNORE
from vllm_csp.training.shape import GRID

BCE_WEIGHT = 2.0
DICE_WEIGHT = 0.5


def mask_loss(logits: Tensor, frames: Tensor) -> Tensor:
    """BCE and Dice of masks [Q, h, w] against uint8 frames of the same shape, 255 ignored."""
    known = (frames != IGNORE).float()
    target = (frames == 1).float()
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (bce * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)
    return BCE_WEIGHT * bce.mean() + DICE_WEIGHT * dice_loss(logits.sigmoid() * known, target)


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - Dice, mean over masks; both [Q, h, w]."""
    overlap = 2 * (probabilities * target).sum(dim=(1, 2))
    total = probabilities.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    loss: Tensor = (1 - (overlap + 1) / (total + 1)).mean()
    return loss


def grid_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """BCE and Dice of grids [R, 16, 16] against the share of each patch that the mask covers."""
    bce = functional.binary_cross_entropy_with_logits(logits, shares)
    return BCE_WEIGHT * bce + DICE_WEIGHT * dice_loss(logits.sigmoid(), shares)


def word_loss(logits: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    """BCE of words [B, W, 16, 16] against the share of each patch where they hold.

    Summed over the known words [B, W] of a patch, mean over patches.
    """
    bce = functional.binary_cross_entropy_with_logits(logits, shares, reduction="none")
    return (bce * known[:, :, None, None]).sum(dim=1).mean()


def meaning_loss(logits: Tensor, grids: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    """BCE of the words [R, W] of a target against the share of it where they hold.

    grids [R, 16, 16]: the target; shares [R, W, 16, 16] and known [R, W] of its picture. Summed
    over words, mean over read-outs.
    """
    if len(logits) == 0:
        return logits.sum()
    held = torch.einsum("rhw,rnhw->rn", grids, shares) / grids.sum(dim=(1, 2))[:, None].clamp(min=1)
    bce = functional.binary_cross_entropy_with_logits(logits, held.clamp(0, 1), reduction="none")
    return (bce * known).sum(dim=1).mean()


def place_loss(places: Tensor, points: Tensor) -> Tensor:
    """Squared distance of places [R, 2] from the points of masks that have one."""
    known = ~points.isnan().any(dim=1)
    if not known.any():
        return places.sum() * 0
    return functional.mse_loss(places[known], points[known])


def row_place_loss(places: Tensor) -> Tensor:
    """Squared distance of places [B, 256, 2] from the centres of the patches, (x, y) in 0..1."""
    centres = (torch.arange(GRID, device=places.device) + 0.5) / GRID
    where = torch.cartesian_prod(centres, centres).flip(1)
    return functional.mse_loss(places, where.expand_as(places))


def point_loss(queries: Tensor, prompts: Tensor, points: Tensor) -> Tensor:
    """Squared distance of queries [R, 256] from the point prompts of masks that have a point."""
    known = ~points.isnan().any(dim=1)
    if not known.any():
        return queries.sum() * 0
    return functional.mse_loss(queries[known], prompts[known])


@torch.no_grad()
def mean_iou(logits: Tensor, frames: Tensor) -> float:
    """Mean IoU of masks [Q, h, w] at SAM's low resolution."""
    predicted, target, known = logits > 0, frames == 1, frames != IGNORE
    overlap = (predicted & target).sum(dim=(1, 2))
    union = ((predicted | target) & known).sum(dim=(1, 2))
    return float((overlap / union.clamp(min=1)).mean())
