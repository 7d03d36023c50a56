"""Reads the files of images that clients send."""

from __future__ import annotations

from typing import Any

from PIL import Image
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO

from vllm_csp.images import open_image
from vllm_csp.media.memory import ImageMemory


class LisaImageIO(ImageMediaIO):
    """vLLM's reader with our decoding: fewer formats, and pixels counted before any is decoded.

    vLLM's own turns images upright first and passes over every error in that, also those of damaged
    pixels; what it then returns is black where pixels are missing. A request's `media_io_kwargs`
    change nothing: how images are read is the checkpoint's matter.
    """

    def __init__(self, **ignored: Any) -> None:
        super().__init__(image_mode=None)

    def load_bytes(self, data: bytes) -> MediaWithBytes[Image.Image]:
        """Decode a file, when there is room for its pixels.

        Raises `vllm_csp.images.ImageError`, a `ValueError`, and `ImagesFullError` (503).
        """
        with open_image(data) as image:
            return MediaWithBytes(ImageMemory.instance().decode(image), data)
