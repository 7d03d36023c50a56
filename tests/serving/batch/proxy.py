"""A loopback proxy that fails on demand, as a real server cannot, and otherwise passes on."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from vllm_csp.serving.server import free_port


@dataclass(frozen=True)
class Fault:
    """Instead of an answer: a status, silence (`hang`), or a broken connection (`drop`), which may
    take those of all other requests along, as the end of a server does (`drop_all`)."""

    status: int = 0
    retry_after: str = ""
    hang: bool = False
    drop: bool = False
    drop_all: bool = False


@dataclass
class Proxy:
    """faults: for each word, what becomes of the next requests with it; asked: how many came.

    statuses: of paths that are not passed on.
    """

    url: str
    target: str
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0
    on_their_way: dict[int, web.Request] = field(default_factory=dict)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """One chat."""
        text = await request.text()
        self.times.append(asyncio.get_running_loop().time())
        self.on_their_way[id(request)] = request
        self.most_at_once = max(self.most_at_once, len(self.on_their_way))
        try:
            for word, faults in self.faults.items():
                if word in text:
                    self.asked[word] += 1
                    if faults:
                        return await self._fail(request, faults.pop(0))
            return await self.passed_on(request)
        finally:
            del self.on_their_way[id(request)]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Anything else."""
        status = self.statuses.get(request.path)
        return await self.passed_on(request) if status is None else web.Response(status=status)

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        """What the server says."""
        wanted = ("Authorization", "Content-Type")
        headers = {name: request.headers[name] for name in wanted if name in request.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                self.target + request.path,
                data=await request.read(),
                headers=headers,
            ) as reply,
        ):
            return web.Response(
                status=reply.status, body=await reply.read(), content_type="application/json"
            )

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.hang:
            await asyncio.sleep(3600)
        if fault.drop or fault.drop_all:
            await asyncio.sleep(0.2)
            for one in list(self.on_their_way.values()) if fault.drop_all else [request]:
                if one.transport is not None:
                    one.transport.abort()
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        body = {"error": {"message": "made up by the proxy", "code": fault.status}}
        return web.json_response(body, status=fault.status or 500, headers=headers)


@contextmanager
def proxy_of(target: str) -> Iterator[Proxy]:
    """A proxy in front of a server, in a thread of its own."""
    port = free_port()
    proxy = Proxy(f"http://127.0.0.1:{port}", target)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_serve(proxy, port), loop).result(20)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end(runner), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(proxy: Proxy, port: int) -> web.AppRunner:
    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/chat/completions", proxy.chat)
    application.router.add_get("/{path:.*}", proxy.page)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def _end(runner: web.AppRunner) -> None:
    await runner.cleanup()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
