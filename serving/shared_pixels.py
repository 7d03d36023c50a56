"""What answers keep of their images."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from PIL import Image

from vllm_csp.mask_calls import ImagePixels
from vllm_csp.serving.mask_client import image_pixels


class SharedPixels:
    """SAM's pixels of the images that answers are being made about, 3 MiB each: one copy."""

    def __init__(self, sam_image_size: int) -> None:
        self._sam_image_size = sam_image_size
        self._kept: WeakValueDictionary[str, asyncio.Future[ImagePixels]] = WeakValueDictionary()

    def of(self, key: str, image: Image.Image) -> asyncio.Future[ImagePixels]:
        """The pixels, soon; others get the same ones as long as somebody has them."""
        found = self._kept.get(key)
        if found is None:
            resizing = asyncio.to_thread(image_pixels, key, image, self._sam_image_size)
            found = self._kept[key] = asyncio.get_running_loop().create_task(resizing)
        return found
