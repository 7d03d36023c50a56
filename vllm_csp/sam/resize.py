"""Low-resolution logits to an image's own pixels, without the square in between.

SAM upscales logits to its input square, cuts the padding off and resizes what is left to the
image: both steps are bilinear, so each side of the result is the low-resolution side times one
matrix. Few of its values are not zero, and those of neighbouring pixels lie side by side: a CPU
multiplies it in bands. The same up to rounding.
Upstream: LISA `model/segment_anything/modeling/sam.py`, `postprocess_masks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

CPU_BAND = 128
"""Pixels of a side that are made from the same few logits."""
LONGEST_SIDE = 4096
"""In pixels; beyond it a matrix of a side may be larger than the picture, which may be one line."""
SIDES_KEPT = 16


@dataclass(frozen=True)
class Side:
    """How one side is resized.

    `matrix`: [pixels, logits], fp32. `bands`, on a CPU: pixels first..last depend on logits
    start..end only.
    """

    matrix: Tensor
    bands: tuple[tuple[int, int, int, int], ...]

    def applied(self, values: Tensor) -> Tensor:
        """[Q, logits, k] -> [Q, pixels, k]."""
        if values.device.type != "cpu":
            return torch.matmul(self.matrix, values)
        made = values.new_empty(len(values), len(self.matrix), values.shape[-1])
        for first, last, start, end in self.bands:
            part = self.matrix[first:last, start:end]
            made[:, first:last] = torch.matmul(part, values[:, start:end])
        return made


def to_original(
    low_res: Tensor, input_size: tuple[int, int], original_size: tuple[int, int], image_size: int
) -> Tensor:
    """Logits [Q, m, m] at `original_size` (H, W): fp32 [Q, H, W], column after column in memory.

    `input_size`: (h, w) of the resized image inside the square of side `image_size`. What lies
    beyond `rows_seen` of either side is not read. Row after row if a side is beyond `LONGEST_SIDE`.
    """
    side, device = low_res.shape[-1], low_res.device
    if max(original_size) > LONGEST_SIDE:
        return _in_two_steps(low_res, input_size, original_size, image_size)
    height, width = (
        resized_side(side, image_size, inside, outside, device)
        for inside, outside in zip(input_size, original_size, strict=True)
    )
    inside = low_res[:, : height.matrix.shape[1], : width.matrix.shape[1]].float()
    rows = height.applied(inside)
    return width.applied(rows.transpose(1, 2)).transpose(1, 2)


def rows_seen(length: int, side: int, image_size: int) -> int:
    """How many of `side` rows the first `length` of `image_size` upscaled ones depend on.

    Bilinear without aligned corners: row i lies between rows (i + 0.5) * side / image_size - 0.5
    rounded down and the next.
    """
    return min(side, (2 * length - 1) * side // (2 * image_size) + 2)


def _in_two_steps(
    low_res: Tensor, input_size: tuple[int, int], original_size: tuple[int, int], image_size: int
) -> Tensor:
    side = low_res.shape[-1]
    seen = [rows_seen(length, side, image_size) for length in input_size]
    inside = low_res[:, None, : seen[0], : seen[1]].float()
    upscaled = (seen[0] * image_size // side, seen[1] * image_size // side)
    square = functional.interpolate(inside, upscaled, mode="bilinear", align_corners=False)
    cut = square[..., : input_size[0], : input_size[1]]
    return functional.interpolate(cut, original_size, mode="bilinear", align_corners=False)[:, 0]


@lru_cache(maxsize=SIDES_KEPT)
def resized_side(
    side: int, image_size: int, inside: int, outside: int, device: torch.device
) -> Side:
    """From `side` logits to `image_size` pixels, of which the first `inside` become `outside`.

    Column j of the matrix is what becomes of a 1 among zeros.
    """
    single = torch.eye(side, device=device).unsqueeze(0)
    square = functional.interpolate(single, image_size, mode="linear", align_corners=False)
    cut = square[..., :inside]
    made = functional.interpolate(cut, outside, mode="linear", align_corners=False)
    matrix = made[0].t()[:, : rows_seen(inside, side, image_size)].contiguous()
    return Side(matrix, tuple(_bands(matrix)) if device.type == "cpu" else ())


def _bands(matrix: Tensor) -> Iterator[tuple[int, int, int, int]]:
    for first in range(0, len(matrix), CPU_BAND):
        last = min(first + CPU_BAND, len(matrix))
        (used,) = matrix[first:last].any(dim=0).nonzero(as_tuple=True)
        yield first, last, int(used[0]), int(used[-1]) + 1
