"""Sizes of a TinyViT image encoder as MobileSAM uses it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TinyVitGeometry:
    """Sizes of one TinyViT: a stage of convolutions, then three stages of windowed attention.

    One entry per stage in `dims` and `depths`; `heads` and `windows` (in cells) belong to the three
    attention stages. `folded` says whether each BatchNorm is already part of its convolution, which
    then has a bias. Sides are in pixels.
    Sources: TinyViT (arXiv 2207.10666) for the stages, MobileSAM (arXiv 2306.14289) for the output
    of 1/16 of the image's side, which SAM's decoder asks for.
    """

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int]
    windows: tuple[int, int, int]
    out_channels: int = 256
    image_size: int = 1024
    folded: bool = False

    @property
    def grid_size(self) -> int:
        """Side of the image embedding: the last of the usual five halvings is left out."""
        return self.image_size // 16


MOBILE_SAM = TinyVitGeometry(
    dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(4, 5, 10), windows=(7, 14, 7)
)
"""TinyViT-5M, the image encoder of MobileSAM."""
