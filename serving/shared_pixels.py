"""What answers keep of their images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from PIL import Image

from vllm_csp.mask_calls import ImagePixels
from vllm_csp.media.memory import ImageMemory
from vllm_csp.serving.mask_client import image_pixels


class KeptPixels:
    """An image's pixels for SAM, 3 MiB, made when they are first wanted; until then the image.

    They are wanted if the engine has lost the image's embedding, which is rare.
    """

    def __init__(self, make: Callable[[], ImagePixels]) -> None:
        self._make: Callable[[], ImagePixels] | None = make
        self._made: asyncio.Task[ImagePixels] | None = None

    def start(self) -> asyncio.Task[ImagePixels]:
        """Make them now, and let go of the image."""
        if self._made is None:
            assert self._make is not None
            self._made = asyncio.get_running_loop().create_task(asyncio.to_thread(self._make))
            self._make = None
        return self._made

    async def get(self) -> ImagePixels:
        """The pixels; others may wait for them, too."""
        return await asyncio.shield(self.start())


class SharedPixels:
    """Those of the images that answers are being made about, one for all answers about an image."""

    def __init__(self, sam_image_size: int, memory: ImageMemory) -> None:
        self._sam_image_size = sam_image_size
        self._memory = memory
        self._kept: WeakValueDictionary[str, KeptPixels] = WeakValueDictionary()

    def of(self, key: str, image: Image.Image) -> KeptPixels:
        """The same ones as long as somebody has them; made at once where memory is short."""
        found = self._kept.get(key)
        if found is None:
            make = partial(image_pixels, key, image, self._sam_image_size)
            found = self._kept[key] = KeptPixels(make)
        if self._memory.is_scarce:
            found.start()
        return found
