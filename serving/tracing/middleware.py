"""A span around every request with a body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_csp.serving.limits.middleware import METHODS
from vllm_csp.serving.logs.note import NOTE, RequestNote
from vllm_csp.serving.logs.request_id import HEADER
from vllm_csp.serving.logs.writer import loggable_path
from vllm_csp.serving.tracing.current import TRACE
from vllm_csp.serving.tracing.trace import Trace


class RequestTrace:
    """ASGI middleware; inside of `RequestLog`, whose id and note it takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            await self._app(scope, receive, send)
            return
        scope[TRACE] = trace = Trace(scope)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            note: RequestNote = scope[NOTE]
            path = loggable_path(scope["path"])
            # An unknown path is no name: anyone could invent as many as they like.
            route = getattr(scope.get("route"), "path", "")
            trace.end(
                f"{scope['method']} {route}".rstrip(),
                {
                    "http.request.method": scope["method"],
                    "url.path": path,
                    "http.response.status_code": status,
                    "vllm_csp.request_id": dict(scope["headers"])[HEADER].decode("latin-1"),
                    "vllm_csp.questions": note.questions,
                    "vllm_csp.masks": note.masks,
                },
            )
