"""Masks are asked of all engines and taken from the one that has the request."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from vllm_csp.mask_calls import ImagePixels, MaskJob
from vllm_csp.media.memory import ImageMemory
from vllm_csp.serving import mask_client
from vllm_csp.serving.mask_client import MaskClient, MaskError
from vllm_csp.serving.shared_pixels import KeptPixels, SharedPixels

COUNTERS = {
    **dict.fromkeys(("streams", "embeddings", "host_embeddings", "pinned"), 1.0),
    **dict.fromkeys(("new_hits", "new_host_hits", "new_misses", "new_encode_seconds"), 0.0),
    "new_shared_images": 0.0,
}


class Engine:
    """Has some requests, and embeddings of some images."""

    def __init__(self, requests: set[str], images: set[str], fails: bool = False) -> None:
        self.requests, self.images, self.fails = requests, images, fails
        self.free = asyncio.Event()
        self.free.set()
        self.pixels: list[str] = []
        self.released: list[str] = []
        self.num_calls = 0

    async def call(
        self, jobs: list[MaskJob], images: list[ImagePixels], released: list[str]
    ) -> list[Any]:
        """As `csp_decode_masks` on two ranks, of which the second decodes."""
        self.num_calls += 1
        await self.free.wait()
        if self.fails:
            raise RuntimeError("the engine has died")
        self.pixels += [one["image_key"] for one in images]
        self.images |= set(self.pixels)
        self.released += released
        return [None, {"results": [self._result(job) for job in jobs], "counters": COUNTERS}]

    def _result(self, job: MaskJob) -> dict[str, Any]:
        if job["request_key"] not in self.requests:
            return {"missing": "request"}
        if job["image_key"] not in self.images:
            return {"missing": "image"}
        return {"masks": job["request_key"]}


def photo() -> KeptPixels:
    """Of which SAM's pixels can be made."""
    return SharedPixels(1024, ImageMemory()).of("photo", Image.new("RGB", (8, 6)))


def job(request: str, image: str = "photo") -> MaskJob:
    return MaskJob(
        request_key=request, image_key=image, token_ids=[1], indexes=[0], wants_tokens=False
    )


@pytest.fixture
def client_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MaskClient]:
    """A client of made-up engines."""

    def made(*engines: Engine) -> MaskClient:
        calls = [engine.call for engine in engines]
        monkeypatch.setattr(mask_client, "engine_calls", lambda client, method: calls)
        return MaskClient(None)  # type: ignore[arg-type]

    return made


def test_masks_come_from_the_engine_that_has_the_request(client_of: Any) -> None:
    async def ask() -> None:
        engines = [Engine({"a", "c"}, {"photo"}), Engine({"b"}, {"photo"})]
        client = client_of(*engines)
        found = await asyncio.gather(*(client.decode(job(name), photo()) for name in "abc"))
        assert [one["masks"] for one in found] == ["a", "b", "c"]
        for name in "abc":
            client.release(name)
        await asyncio.sleep(0.2)
        assert [sorted(one.released) for one in engines] == [["a", "b", "c"]] * 2
        # Answers that finish together share a call, and so do releases.
        assert [one.num_calls for one in engines] == [2, 2]

    asyncio.run(ask())


def test_pixels_go_only_where_they_are_missed(client_of: Any) -> None:
    async def ask() -> None:
        engines = [Engine({"a"}, {"photo"}), Engine({"b"}, set())]
        client = client_of(*engines)
        assert (await client.decode(job("b"), photo()))["masks"] == "b"
        assert [one.pixels for one in engines] == [[], ["photo"]]

    asyncio.run(ask())


def test_an_engine_that_is_busy_or_dead_holds_up_no_other(client_of: Any) -> None:
    async def ask() -> None:
        busy, dead = Engine(set(), set()), Engine(set(), set(), fails=True)
        busy.free.clear()
        client = client_of(busy, dead, Engine({"a", "b"}, {"photo"}))
        for name in "ab":
            found = await asyncio.wait_for(client.decode(job(name), photo()), 5)
            assert found["masks"] == name
        busy.free.set()

    asyncio.run(ask())


def test_what_no_engine_has_is_an_error(client_of: Any) -> None:
    async def ask() -> None:
        client = client_of(Engine({"a"}, {"photo"}), Engine(set(), set()))
        with pytest.raises(MaskError, match="lost the request"):
            await client.decode(job("b"), photo())
        client = client_of(Engine({"a"}, {"photo"}), Engine(set(), set(), fails=True))
        with pytest.raises(RuntimeError, match="has died"):
            await client.decode(job("b"), photo())

    asyncio.run(ask())


def test_answers_about_an_image_share_its_pixels_while_one_is_made() -> None:
    async def ask() -> None:
        shared, image = SharedPixels(16, ImageMemory()), Image.new("RGB", (8, 6))
        first, second = shared.of("photo", image), shared.of("photo", image)
        assert first is second
        gone = weakref.ref(image)
        del image
        assert gone() is not None, "nobody has wanted its pixels yet"
        pixels = await first.get()
        assert (pixels["shape"], pixels["original_size"]) == ([12, 16, 3], [6, 8])
        assert await shared.of("other", Image.new("RGB", (6, 8))).get() != pixels
        assert gone() is None
        del first, second
        await asyncio.sleep(0)
        assert not shared._kept

    asyncio.run(ask())


def test_where_memory_is_short_images_are_let_go_of() -> None:
    async def ask() -> None:
        memory = ImageMemory()
        memory.bound(1 << 20, lambda: None)
        image = Image.new("RGB", (8, 6))
        gone = weakref.ref(image)
        kept = SharedPixels(16, memory).of("photo", image)
        del image
        deadline = time.monotonic() + 5
        while gone() is not None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert gone() is None, "though nobody has wanted its pixels"
        assert (await kept.get())["original_size"] == [6, 8]

    asyncio.run(ask())
