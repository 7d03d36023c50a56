"""Fetches masks from the engines, many finished answers in one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from PIL import Image
from vllm.engine.protocol import EngineClient

from vllm_csp.images import sam_resize
from vllm_csp.mask_calls import ImagePixels, MaskJob, WorkerReply
from vllm_csp.serving.answer_masks import failure
from vllm_csp.serving.engines import EngineCall, engine_calls
from vllm_csp.serving.metrics import Metrics

RELEASE_DELAY = 0.05  # seconds that a release waits for a decode call to ride on

Result = dict[str, Any]


class Pixels(Protocol):
    """Of an image, for SAM; see `shared_pixels.KeptPixels`."""

    async def get(self) -> ImagePixels:
        """To send to the engine."""


class MaskError(RuntimeError):
    """No engine had what a mask needs, or the one that had could not make it."""


class MaskClient:
    """One per API process.

    vLLM does not say to which engine it gave a request: all are asked, and one knows it.
    """

    def __init__(self, engine: EngineClient) -> None:
        calls = engine_calls(engine, "csp_decode_masks")
        self._lines = [MaskLine(call, number) for number, call in enumerate(calls)]

    async def decode(self, job: MaskJob, pixels: Pixels) -> Result:
        """Packed masks of one answer; `pixels` are sent only if their embedding was evicted.

        Raises `MaskError` when the request's queries are gone or decoding failed.
        """
        line, result = await self._find(job)
        if result.get("missing") == "image":
            result = await line.submit(job, [await pixels.get()])
        if (reason := failure(result)) is not None:
            raise MaskError(reason)
        return result

    def release(self, request_key: str) -> None:
        """Tell the engines, soon, that nothing more is wanted of a request."""
        for line in self._lines:
            line.release(request_key)

    async def _find(self, job: MaskJob) -> tuple[MaskLine, Result]:
        """The first answer of an engine that knows the request, or the last of one that does not.

        Raises what the calls raised if no engine answers.
        """
        asked = {line.submit(job, []): line for line in self._lines}
        answers: list[tuple[MaskLine, Result]] = []
        errors: list[BaseException] = []
        waiting = set(asked)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                if (error := future.exception()) is not None:
                    errors.append(error)
                elif future.result().get("missing") != "request":
                    return asked[future], future.result()
                else:
                    answers.append((asked[future], future.result()))
        if errors:
            raise errors[0]
        return answers[-1]


class MaskLine:
    """The line to one engine; answers that finish during a call share the next one."""

    def __init__(self, call: EngineCall, number: int = 0) -> None:
        self._call = call
        self._observe = partial(Metrics.instance().observe_call, number)
        self._waiting: list[tuple[MaskJob, list[ImagePixels], asyncio.Future[Result]]] = []
        self._released: list[str] = []
        self._runner: asyncio.Task[None] | None = None

    def submit(self, job: MaskJob, images: list[ImagePixels]) -> asyncio.Future[Result]:
        """The worker's result for a job (see `csp_decode_masks`)."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting any more when an engine fails.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append((job, images, future))
        self._start()
        return future

    def release(self, request_key: str) -> None:
        """Forget a request with the next call."""
        self._released.append(request_key)
        self._start()

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
                results = await self._ask(batch, released)
            except Exception as error:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _ask(
        self,
        batch: Sequence[tuple[MaskJob, list[ImagePixels], asyncio.Future[Result]]],
        released: list[str],
    ) -> list[Result]:
        jobs = [job for job, _, _ in batch]
        images = [image for _, some, _ in batch for image in some]
        began = time.monotonic()
        replies = await self._call(jobs, images, released)
        # One reply per worker; only the decoding rank gives one.
        reply: WorkerReply = next(one for one in replies if one is not None)
        results = reply["results"]
        decoded = sum(failure(result) is None for result in results)
        self._observe(decoded, time.monotonic() - began, reply["counters"])
        return results


def image_pixels(image_key: str, image: Image.Image, sam_image_size: int) -> ImagePixels:
    """SAM's pixels of an image, to send to the engine."""
    pixels = sam_resize(image, sam_image_size)
    return ImagePixels(
        image_key=image_key,
        pixels=pixels.tobytes(),
        shape=list(pixels.shape),
        original_size=[image.height, image.width],
    )
