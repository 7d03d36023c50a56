"""What images take of a server's memory, from their files to the pixels that the engine gets."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from http import HTTPStatus

from PIL import Image
from vllm.exceptions import GracefulHTTPError, VLLMValidationError

from vllm_csp.images import MAX_PIXELS, to_rgb

RGB_BYTES = 4
"""What Pillow keeps of a pixel in RGB."""
DECODING_BYTES = 16
"""What decoding takes of a pixel beside that, at most: WebP, by the process's high-water mark."""

_PER_PIXEL = DECODING_BYTES + RGB_BYTES

NO_LIMIT = 1 << 62
PATIENCE_SECONDS = 30
_PAUSE_SECONDS = 0.02


class ImagesFullError(GracefulHTTPError):
    """There is no room for an image; vLLM's handlers make a 503 of it."""

    def __init__(self) -> None:
        super().__init__(
            "the server holds as many images as it may; please try again later",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class ImageMemory:
    """Counts bytes of fetched files and of decoded pixels, however long and wherever they live."""

    def __init__(self) -> None:
        self._limit = NO_LIMIT
        self._refused: Callable[[], None] = lambda: None
        self._held = 0
        self._lock = threading.Lock()
        self._returned: deque[int] = deque()

    @staticmethod
    @cache
    def instance() -> ImageMemory:
        """The process's; without a limit until a server sets one."""
        return ImageMemory()

    def bound(self, limit: int, refused: Callable[[], None]) -> None:
        """Hold at most `limit` bytes; `refused` is called for each image that finds no room."""
        self._limit, self._refused = limit, refused

    @property
    def held(self) -> int:
        """Bytes."""
        with self._lock:
            return self._settle()

    @property
    def is_scarce(self) -> bool:
        """Whether an image as large as any might have to wait."""
        return self.held + MAX_PIXELS * _PER_PIXEL > self._limit

    def take(self, size: int) -> None:
        """Hold more. Raises `ImagesFullError`."""
        if not self._fits(size):
            self._refused()
            raise ImagesFullError

    def wait_for(self, size: int) -> None:
        """Hold more, as soon as there is room: the thread that decodes waits, others come later.

        Raises `ImagesFullError` when there was none for `PATIENCE_SECONDS`, and
        `VLLMValidationError` (400) when there never is so much.
        """
        if size > self._limit:
            raise VLLMValidationError(
                f"this server holds at most {self._limit >> 20} MiB of images at a time, and this "
                f"one takes {size >> 20} to decode: send a smaller one",
                parameter="image_url",
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._fits(size):
            if time.monotonic() > deadline:
                self._refused()
                raise ImagesFullError
            time.sleep(_PAUSE_SECONDS)

    def give_back(self, size: int) -> None:
        """Hold less. Takes no lock: the garbage collector calls this at any moment."""
        self._returned.append(size)

    def decode(self, image: Image.Image) -> Image.Image:
        """`to_rgb` of an image that was opened, counted until nobody has it any more.

        Raises what `wait_for` and `to_rgb` do.
        """
        pixels = image.width * image.height
        self.wait_for(pixels * _PER_PIXEL)
        kept = 0
        try:
            rgb = to_rgb(image)
            kept = pixels * RGB_BYTES
            weakref.finalize(rgb, self.give_back, kept).atexit = False
            return rgb
        finally:
            self.give_back(pixels * _PER_PIXEL - kept)

    def _fits(self, size: int) -> bool:
        with self._lock:
            if self._settle() + size > self._limit:
                return False
            self._held += size
            return True

    def _settle(self) -> int:
        while self._returned:
            self._held -= self._returned.popleft()
        return self._held
