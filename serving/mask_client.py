"""Fetches masks from the engine, many finished answers in one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image
from vllm.engine.protocol import EngineClient

from vllm_csp.images import sam_resize
from vllm_csp.serving.metrics import Metrics
from vllm_csp.worker import ImagePixels, MaskJob, WorkerReply

RELEASE_DELAY = 0.05  # seconds that a release waits for a decode call to ride on


class MaskError(RuntimeError):
    """The engine no longer had what a mask needs."""


class MaskClient:
    """One per API process; answers that finish during a call share the next one."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._metrics = Metrics.instance()
        self._waiting: list[tuple[MaskJob, list[ImagePixels], asyncio.Future[dict[str, Any]]]] = []
        self._released: list[str] = []
        self._runner: asyncio.Task[None] | None = None

    async def decode(self, job: MaskJob, image: Image.Image) -> dict[str, Any]:
        """Packed masks of one answer; `image` is sent only if its embedding was evicted.

        Raises `MaskError` when the request's queries are gone.
        """
        result = await self._submit(job, [])
        if result.get("missing") == "image":
            pixels = await asyncio.to_thread(image_pixels, job["image_key"], image)
            result = await self._submit(job, [pixels])
        if "missing" in result:
            raise MaskError(f"the engine lost the {result['missing']} before its masks were made")
        return result

    def release(self, request_key: str) -> None:
        """Tell the engine, soon, that nothing more is wanted of a request."""
        self._released.append(request_key)
        self._start()

    def _submit(self, job: MaskJob, images: list[ImagePixels]) -> asyncio.Future[dict[str, Any]]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, images, future))
        self._start()
        return future

    def _start(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._waiting or self._released:
            if not self._waiting:
                await asyncio.sleep(RELEASE_DELAY)
            batch, self._waiting = self._waiting, []
            released, self._released = self._released, []
            try:
                results = await self._call(batch, released)
            except Exception as error:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _call(
        self,
        batch: Sequence[tuple[MaskJob, list[ImagePixels], asyncio.Future[dict[str, Any]]]],
        released: list[str],
    ) -> list[dict[str, Any]]:
        jobs = [job for job, _, _ in batch]
        images = [image for _, some, _ in batch for image in some]
        began = time.monotonic()
        replies = await self._engine.collective_rpc(
            "csp_decode_masks", args=(jobs, images, released)
        )
        # One reply per worker; only the decoding rank gives one.
        reply: WorkerReply = next(one for one in replies if one is not None)
        self._metrics.observe_call(len(jobs), time.monotonic() - began, reply["counters"])
        return reply["results"]


def image_pixels(image_key: str, image: Image.Image) -> ImagePixels:
    """SAM's pixels of an image, to send to the engine."""
    pixels = sam_resize(image)
    return ImagePixels(
        image_key=image_key,
        pixels=pixels.tobytes(),
        shape=list(pixels.shape),
        original_size=[image.height, image.width],
    )
