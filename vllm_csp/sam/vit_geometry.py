"""Sizes of a SAM ViT image encoder, read from the tensor shapes of a checkpoint."""

from dataclasses import dataclass
from typing import Self

from vllm_csp.sam.geometry import SamGeometry, Shapes, count_of, shape_of


@dataclass(frozen=True, kw_only=True)
class VitGeometry(SamGeometry):
    """Sizes of one SAM with a ViT: everything its checkpoint does not fix by convention.

    `patch_size` is in pixels, `window_size` in patches; it is 0 when every block is global.
    Upstream: segment-anything `build_sam.py`, whose arguments these are.
    """

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    window_size: int
    global_attention_indexes: tuple[int, ...]
    mlp_ratio: float = 4.0

    @property
    def grid_size(self) -> int:
        """Patches per side; also the side of the image embedding."""
        return self.image_size // self.patch_size

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Self:
        """Read every size, the image's included; see `SamGeometry.from_shapes`."""
        position = shape_of(shapes, "image_encoder.pos_embed", 4)
        _, grid, grid_width, embed_dim = position
        if grid != grid_width:
            raise ValueError(f"image_encoder.pos_embed is not square: {position}")
        patch = shape_of(shapes, "image_encoder.patch_embed.proj.weight", 4)
        if patch[:2] != (embed_dim, 3) or patch[2] != patch[3]:
            raise ValueError(
                f"image_encoder.patch_embed.proj.weight has shape {patch}, expected "
                f"({embed_dim}, 3, p, p) for the width of image_encoder.pos_embed"
            )
        depth = count_of(shapes, "image_encoder.blocks.")
        head_dim = shape_of(shapes, _rel_pos(0), 2)[1]
        if head_dim == 0 or embed_dim % head_dim:
            raise ValueError(f"{_rel_pos(0)}: {head_dim} columns do not divide width {embed_dim}")
        window_size, global_indexes = _windows(shapes, depth, grid, head_dim)
        hidden = shape_of(shapes, "image_encoder.blocks.0.mlp.lin1.weight", 2)[0]
        return cls(
            image_size=patch[2] * grid,
            patch_size=patch[2],
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // head_dim,
            out_channels=shape_of(shapes, "image_encoder.neck.0.weight", 4)[0],
            window_size=window_size,
            global_attention_indexes=global_indexes,
            mlp_ratio=hidden / embed_dim,
        )


VIT_H = VitGeometry(
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


def _rel_pos(block: int) -> str:
    return f"image_encoder.blocks.{block}.attn.rel_pos_h"


def _windows(shapes: Shapes, depth: int, grid: int, head_dim: int) -> tuple[int, tuple[int, ...]]:
    """Window size and indexes of the global blocks: rel_pos of side n has 2 * n - 1 rows."""
    window_size = 0
    global_indexes = []
    for block in range(depth):
        rows, columns = shape_of(shapes, _rel_pos(block), 2)
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
