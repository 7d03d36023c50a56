"""Learned positions of SAM's ViT for another size of image than its weights were made for."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

POSITIONS = "image_encoder.pos_embed"
RELATIVE = (".attn.rel_pos_h", ".attn.rel_pos_w")


def fitted(name: str, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """A weight of a checkpoint, interpolated if it holds positions of another grid.

    `name`: as in SAM checkpoints. `weight`: positions [1, g, g, D], or [2g - 1, d] of a block's
    relative ones. `shape`: of the module's own.
    Returns: of that grid, in the weight's dtype; anything else as it is.
    Sources: segment-anything `modeling/image_encoder.py`, `get_rel_pos`, for relative positions;
    ViTDet (arXiv 2203.16527), whose encoder SAM's is, in detectron2's `get_abs_pos` for the others.
    """
    if tuple(weight.shape) == tuple(shape):
        return weight
    if name == POSITIONS and weight.dim() == 4:
        channels = weight.float().permute(0, 3, 1, 2)
        grid = functional.interpolate(channels, tuple(shape[1:3]), mode="bicubic")
        return grid.permute(0, 2, 3, 1).to(weight.dtype)
    if name.endswith(RELATIVE) and weight.dim() == 2:
        rows = functional.interpolate(weight.float().t()[None], shape[0], mode="linear")
        return rows[0].t().to(weight.dtype)
    return weight
