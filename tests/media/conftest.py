"""A real server on loopback that sends images, redirects, and what it should not."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from PIL import Image

from vllm_csp.media.connection import MAX_BYTES


def png() -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    return file.getvalue()


class Host:
    """The server's port, and the paths that it was asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """An address on this server."""
        return f"http://{host}:{self.port}/{path}"

    async def answer(self, request: web.Request) -> web.Response:
        """Serve a path."""
        self.asked.append(request.path)
        match request.path:
            case "/image.png":
                return web.Response(body=png(), content_type="image/png")
            case "/large.png":
                return web.Response(body=bytes(MAX_BYTES + 1))
            case "/redirect":
                raise web.HTTPFound(request.query["to"])
            case "/slow.png":
                await asyncio.sleep(5)
        return web.Response(status=404)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The server, in a thread of its own."""
    served, loop, ready = Host(), asyncio.new_event_loop(), threading.Event()

    async def start() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", served.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.port = runner.addresses[0][1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield served
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
