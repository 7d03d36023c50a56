"""Sizes of a TinyViT image encoder as MobileSAM uses it, read from tensor shapes."""

from dataclasses import dataclass
from math import isqrt
from typing import Self

from vllm_csp.sam.geometry import SamGeometry, Shapes, count_of, shape_of

STAGES = 4


@dataclass(frozen=True, kw_only=True)
class TinyVitGeometry(SamGeometry):
    """Sizes of one SAM with a TinyViT: a stage of convolutions, then three of windowed attention.

    `dims` and `depths` have an entry per stage, `heads` and `windows` (in cells) per attention
    stage. `folded`: each BatchNorm is already part of its convolution, which then has a bias.
    No tensor shows the size of the image: it is the 1024 pixels that SAM's decoder was trained on.
    Sources: TinyViT (arXiv 2207.10666) for the stages, MobileSAM (arXiv 2306.14289) for the output
    of 1/16 of the image's side.
    """

    image_size: int = 1024
    out_channels: int = 256
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    folded: bool = False

    @property
    def grid_size(self) -> int:
        """Side of the image embedding: the last of TinyViT's five halvings is left out."""
        return self.image_size // 16

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Self:
        """Read every size but the image's; see `SamGeometry.from_shapes`."""
        stages = count_of(shapes, "image_encoder.layers.")
        if stages != STAGES:
            raise ValueError(f"image_encoder.layers has {stages} stages, a TinyViT has {STAGES}")
        layers = [f"image_encoder.layers.{stage}." for stage in range(STAGES)]
        first = "image_encoder.patch_embed.seq.2.c."
        dims = [shape_of(shapes, f"{first}weight", 4)[0]]
        heads, windows = [], []
        for layer in layers[1:]:
            dims.append(shape_of(shapes, f"{layer}blocks.0.attn.qkv.weight", 2)[1])
            biases = f"{layer}blocks.0.attn.attention_biases"
            count, distances = shape_of(shapes, biases, 2)
            if isqrt(distances) ** 2 != distances or count == 0 or dims[-1] % count:
                raise ValueError(
                    f"{biases} has shape {(count, distances)}, expected (heads, window ** 2) "
                    f"for the width {dims[-1]}"
                )
            heads.append(count)
            windows.append(isqrt(distances))
        return cls(
            dims=tuple(dims),
            depths=tuple(count_of(shapes, f"{layer}blocks.") for layer in layers),
            heads=tuple(heads),
            windows=tuple(windows),
            out_channels=shape_of(shapes, "image_encoder.neck.0.weight", 4)[0],
            folded=f"{first}bias" in shapes,
        )


MOBILE_SAM = TinyVitGeometry(
    dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(4, 5, 10), windows=(7, 14, 7)
)
"""TinyViT-5M, the image encoder of MobileSAM."""
