"""The limits in front of a small app on a real uvicorn, without an engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.server import wait_until
from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.limits.admission import Admission, OverloadError, count_answers
from vllm_csp.serving.limits.bodies import Bodies
from vllm_csp.serving.limits.middleware import Limits, LimitsMiddleware
from vllm_csp.serving.limits.refusal import RefusalError
from vllm_csp.serving.logs.middleware import RequestLog
from vllm_csp.serving.server import free_port


class Lines:
    """Takes the place of the log's writer."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, fields: dict[str, Any]) -> None:
        self.written.append(fields)


class Guarded:
    """The app: routes that echo, wait until let go, and stream.

    closed: a refusal for everything.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.closed: RefusalError | None = None
        self.seen = 0
        self.lines = Lines()
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.let_go = asyncio.Event()
        self.bodies = Bodies(settings)
        self.limits = Limits(
            self.bodies, Admission(settings.max_held_requests), lambda: self.closed
        )
        self.app = Starlette(
            routes=[
                Route("/size", self.size, methods=["POST", "PUT", "GET"]),
                Route("/wait", self.wait, methods=["POST"]),
                Route("/stream", self.stream, methods=["POST"]),
                Route("/many", self.many, methods=["POST"]),
                Route("/busy", self.busy, methods=["POST"]),
            ],
            middleware=[Middleware(LimitsMiddleware)],
        )
        self.app.state.csp_limits = self.limits
        self.app.middleware_stack = RequestLog(  # type: ignore[assignment]
            self.app.build_middleware_stack(),
            self.lines,  # type: ignore[arg-type]
        )

    async def size(self, request: Request) -> Response:
        self.seen += 1
        return JSONResponse(len(await request.body()))

    async def wait(self, request: Request) -> Response:
        await request.body()
        await self.let_go.wait()
        return JSONResponse("done")

    async def stream(self, request: Request) -> Response:
        async def parts() -> Any:
            yield "begun"
            await self.let_go.wait()
            yield "done"

        return StreamingResponse(parts())

    async def many(self, request: Request) -> Response:
        try:
            count_answers(request.scope, int(await request.body()))
        except OverloadError as error:
            return JSONResponse(str(error), status_code=error.http_status)
        await self.let_go.wait()
        return JSONResponse("done")

    async def busy(self, request: Request) -> Response:
        return JSONResponse("another's refusal", status_code=503)

    def soon(self, call: Any, *args: Any) -> None:
        """Call in the server's loop."""
        self.loop.call_soon_threadsafe(call, *args)


@contextmanager
def guarded(**settings: Any) -> Iterator[Guarded]:
    """Serve it in a thread."""
    found = Guarded(ServerSettings(**settings))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(found.app, port=port, log_level="warning"))

    def run() -> None:
        asyncio.set_event_loop(found.loop)
        found.loop.run_until_complete(server.serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 20, "the app is served")
    found.url = f"http://127.0.0.1:{port}"
    try:
        yield found
    finally:
        found.soon(found.let_go.set)
        server.should_exit = True
        thread.join(10)
