"""The baseline "just a smaller image"."""

from __future__ import annotations

from PIL import Image


def with_detail_of(image: Image.Image, scale: float) -> Image.Image:
    """An image of the same size that holds only the detail of one `scale` times as wide and high.

    Shrunk (antialiased) and enlarged again, so both encoders and the masks keep their geometry.
    """
    if scale == 1:
        return image
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shrunk = image.resize(small, Image.Resampling.LANCZOS)
    return shrunk.resize(image.size, Image.Resampling.BICUBIC)
