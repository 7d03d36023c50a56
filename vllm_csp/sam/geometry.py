"""Sizes of a SAM image encoder, read from the tensor shapes of a checkpoint."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

Shapes = Mapping[str, tuple[int, ...]]

_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class SamGeometry:
    """Sizes of one SAM: everything its checkpoint does not fix by convention.

    Sides are in pixels (`image_size`, `patch_size`) or patches (`window_size`). `out_channels` is
    also the width of the prompts and of the mask decoder. `window_size` is 0 when every block is
    global. Upstream: segment-anything `build_sam.py`, whose arguments these are.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    out_channels: int
    window_size: int
    global_attention_indexes: tuple[int, ...]
    mlp_ratio: float = 4.0

    @property
    def grid_size(self) -> int:
        """Patches per side; also the side of the image embedding."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        """Channels per attention head of the image encoder."""
        return self.embed_dim // self.num_heads

    @property
    def mask_size(self) -> int:
        """Side of the low-resolution logits, in pixels."""
        return 4 * self.grid_size

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Self:
        """Read the geometry from tensor shapes.

        `shapes`: name to shape, names as in Meta's SAM checkpoints (`image_encoder.pos_embed`, ...;
        LISA's less `model.visual_model.`); further names are ignored.
        Raises: ValueError naming the tensor that is missing or does not fit.
        """
        position = _shape(shapes, "image_encoder.pos_embed", 4)
        _, grid, grid_width, embed_dim = position
        if grid != grid_width:
            raise ValueError(f"image_encoder.pos_embed is not square: {position}")
        patch = _shape(shapes, "image_encoder.patch_embed.proj.weight", 4)
        if patch[:2] != (embed_dim, 3) or patch[2] != patch[3]:
            raise ValueError(
                f"image_encoder.patch_embed.proj.weight has shape {patch}, expected "
                f"({embed_dim}, 3, p, p) for the width of image_encoder.pos_embed"
            )
        depth = _depth(shapes)
        head_dim = _shape(shapes, _rel_pos(0), 2)[1]
        if head_dim == 0 or embed_dim % head_dim:
            raise ValueError(f"{_rel_pos(0)}: {head_dim} columns do not divide width {embed_dim}")
        window_size, global_indexes = _windows(shapes, depth, grid, head_dim)
        hidden = _shape(shapes, "image_encoder.blocks.0.mlp.lin1.weight", 2)[0]
        return cls(
            image_size=patch[2] * grid,
            patch_size=patch[2],
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // head_dim,
            out_channels=_shape(shapes, "image_encoder.neck.0.weight", 4)[0],
            window_size=window_size,
            global_attention_indexes=global_indexes,
            mlp_ratio=hidden / embed_dim,
        )


VIT_H = SamGeometry(
    image_size=1024,
    patch_size=16,
    embed_dim=1280,
    depth=32,
    num_heads=16,
    out_channels=256,
    window_size=14,
    global_attention_indexes=(7, 15, 23, 31),
)
"""SAM ViT-H, the encoder of every published LISA checkpoint."""


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(f"SAM weights lack {name}")
    shape = tuple(shapes[name])
    if len(shape) != rank:
        raise ValueError(f"{name} has shape {shape}, expected {rank} dimensions")
    return shape


def _rel_pos(block: int) -> str:
    return f"image_encoder.blocks.{block}.attn.rel_pos_h"


def _depth(shapes: Shapes) -> int:
    blocks = {int(match[1]) for match in map(_BLOCK.match, shapes) if match}
    if not blocks:
        raise ValueError("SAM weights lack image_encoder.blocks.0")
    absent = set(range(max(blocks))) - blocks
    if absent:
        raise ValueError(f"SAM weights lack image_encoder.blocks.{min(absent)}")
    return len(blocks)


def _windows(shapes: Shapes, depth: int, grid: int, head_dim: int) -> tuple[int, tuple[int, ...]]:
    """Window size and indexes of the global blocks: rel_pos of side n has 2 * n - 1 rows."""
    window_size = 0
    global_indexes = []
    for block in range(depth):
        rows, columns = _shape(shapes, _rel_pos(block), 2)
        if columns != head_dim:
            raise ValueError(f"{_rel_pos(block)} has {columns} columns, block 0 has {head_dim}")
        if rows % 2 == 0 or rows > 2 * grid - 1:
            raise ValueError(f"{_rel_pos(block)} has {rows} rows: odd and < {2 * grid} expected")
        if rows == 2 * grid - 1:
            global_indexes.append(block)
        elif window_size not in (0, (rows + 1) // 2):
            raise ValueError(
                f"{_rel_pos(block)} is of window {(rows + 1) // 2}, earlier blocks of {window_size}"
            )
        else:
            window_size = (rows + 1) // 2
    return window_size, tuple(global_indexes)
