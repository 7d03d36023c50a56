"""Around everything else: names a request, follows its answer, writes its line."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_csp.serving.logs.note import NOTE, RequestNote
from vllm_csp.serving.logs.request_id import HEADER, take_request_id
from vllm_csp.serving.logs.writer import RequestLogWriter, loggable_path

# Asked every few seconds by machines. What makes them a 503 has lines of its own.
QUIET = ("/health", "/ready", "/metrics", "/ping", "/load")


class RequestLog:
    """ASGI middleware that gives every request an id, in its answer too, and logs it."""

    def __init__(self, app: ASGIApp, writer: RequestLogWriter) -> None:
        self._app = app
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = take_request_id(scope)
        exchange = _Exchange(receive, send, request_id)
        scope[NOTE] = note = RequestNote()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            if scope["path"] not in QUIET or exchange.status not in (200, 503):
                self._writer.write(
                    {
                        "request_id": request_id,
                        "method": scope["method"],
                        "path": loggable_path(scope["path"]),
                        "status": exchange.status,
                        "seconds": round(time.monotonic() - exchange.began, 4),
                        "questions": note.questions,
                        "masks": note.masks,
                        "bytes_in": exchange.bytes_in,
                        "bytes_out": exchange.bytes_out,
                        "aborted": exchange.aborted,
                    }
                )


class _Exchange:
    """One request and its answer on their way through.

    status: None if none was sent. aborted: the client went away before it had the whole answer.
    """

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id.encode()
        self._complete = False
        self.began = time.monotonic()
        self.status: int | None = None
        self.bytes_in = self.bytes_out = 0
        self.aborted = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.aborted = not self._complete
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            others = [pair for pair in message["headers"] if pair[0].lower() != HEADER]
            message = {**message, "headers": [*others, (HEADER, self._request_id)]}
        elif message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        await self._send(message)
