"""Masks as the losses want them: on SAM's frame, on CLIP's grid, and as a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from vllm_csp.images import sam_input_size
from vllm_csp.training.questions import IGNORE, Mask
from vllm_csp.training.shape import GRID, IMAGE_SIDE

LOGITS = 256
"""Side of SAM's low-resolution logits."""

_SAM_SIDE = 1024

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """A mask on CLIP's grid [16, 16], on SAM's frame [256, 256], and as a point [2] or nan."""

    grid: Floats
    frame: Mask
    point: Floats


def target_of(mask: Mask) -> Target:
    """A mask [H, W] as all losses want it."""
    frame = on_sam_frame(mask)
    point = inner_point(frame == 1)
    nowhere = np.full(2, np.nan, np.float32)
    return Target(on_clip_grid(mask), frame, nowhere if point is None else point)


def on_sam_frame(mask: Mask) -> Mask:
    """A mask [H, W] on the frame of SAM's logits: uint8 [256, 256], padding is ignored."""
    height, width = (
        side * LOGITS // _SAM_SIDE for side in sam_input_size((mask.shape[0], mask.shape[1]))
    )
    resized = Image.fromarray(mask).resize(
        (max(1, width), max(1, height)), Image.Resampling.NEAREST
    )
    frame = np.full((LOGITS, LOGITS), IGNORE, np.uint8)
    frame[: resized.height, : resized.width] = np.asarray(resized)
    return frame


def on_clip_grid(mask: Mask) -> Floats:
    """Share of each CLIP patch that a mask [H, W] covers: fp32 [16, 16], in the central square."""
    short = min(mask.shape)
    top, left = (mask.shape[0] - short) // 2, (mask.shape[1] - short) // 2
    square = (mask[top : top + short, left : left + short] == 1).astype(np.float32)
    resized = Image.fromarray(square).resize((IMAGE_SIDE // 2,) * 2, Image.Resampling.BOX)
    pooled = np.asarray(resized).reshape(GRID, IMAGE_SIDE // 2 // GRID, GRID, -1)
    shares: Floats = pooled.mean(axis=(1, 3))
    return shares


def inner_point(frame: npt.NDArray[np.bool_]) -> Floats | None:
    """The point deepest inside a mask of one piece, (x, y) in 0..1 of SAM's padded square.

    frame: bool [256, 256], every second row and column of which is enough. None for a mask of
    several pieces: no point stands for it.
    """
    coarse = frame[::2, ::2]
    labels, _ = ndimage.label(coarse)
    sizes = np.bincount(labels.ravel())[1:]
    if len(sizes) == 0 or sizes.max() < 0.95 * sizes.sum():
        return None
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return np.array([(2 * column + 1) / LOGITS, (2 * row + 1) / LOGITS], np.float32)
