"""Local image files as data URLs, each read once for the rows that ask about it."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from pathlib import Path

from vllm_csp.serving.client import image_data_url

MOST_BYTES = 100 << 20


class Photos:
    """Keeps the latest few."""

    def __init__(self, num_kept: int) -> None:
        self.num_read = 0
        self._num_kept = num_kept
        self._urls: OrderedDict[str, asyncio.Task[str]] = OrderedDict()

    async def data_url(self, file: str) -> str:
        """The file's data URL. Raises `OSError` when it cannot be read."""
        reading = self._urls.get(file)
        if reading is None:
            self.num_read += 1
            reading = asyncio.create_task(asyncio.to_thread(_read, file))
            self._urls[file] = reading
            if len(self._urls) > self._num_kept:
                self._urls.popitem(last=False)
        self._urls.move_to_end(file)
        return await asyncio.shield(reading)


def _read(file: str) -> str:
    try:
        size = os.stat(file).st_size
    except ValueError as error:  # A path that no system has, with a NUL for example.
        raise OSError(str(error)) from error
    if size > MOST_BYTES:
        raise OSError(f"{size} bytes, at most {MOST_BYTES} are sent")
    return image_data_url(Path(file))
