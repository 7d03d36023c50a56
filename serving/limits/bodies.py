"""Request bodies, read whole before any route sees them, and no further than they may go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.types import Message, Receive, Scope

from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.limits.refusal import RefusalError


class ClientGoneError(Exception):
    """The client closed the connection before its body was complete."""


class Bodies:
    """Bounds each body, all bodies held together, and the time that a body may take."""

    def __init__(self, settings: ServerSettings) -> None:
        self._limit = settings.max_body_mb << 20
        self._limit_together = settings.max_held_body_mb << 20
        self._seconds = settings.body_seconds
        self.held_bytes = 0

    @asynccontextmanager
    async def held(self, scope: Scope, receive: Receive) -> AsyncIterator[Receive]:
        """Read the body and hold it; gives a `receive` that has it in one message.

        Raises `RefusalError` (413, 408, 503) and `ClientGoneError`.
        """
        if _declared_length(scope) > self._limit:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] != "http.request":
                            raise ClientGoneError
                        part = message.get("body", b"")
                        size += len(part)
                        self.held_bytes += len(part)
                        self._check(size)
                        parts.append(part)
                        more = message.get("more_body", False)
            except TimeoutError:
                raise RefusalError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "body_too_slow",
                    f"the body did not arrive within {self._seconds:g} s",
                ) from None
            replayed = _replayed(b"".join(parts), receive)
            parts.clear()
            yield replayed
        finally:
            self.held_bytes -= size

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise self._too_large()
        if self.held_bytes > self._limit_together:
            raise RefusalError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "bodies_full",
                "the server holds as many request bodies as it may; please try again later",
                retry_after=1,
            )

    def _too_large(self) -> RefusalError:
        return RefusalError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the body is larger than {self._limit} bytes: send a smaller image file",
        )


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            # More digits than Python converts are more bytes than there are.
            return int(value) if len(value) < 20 else 1 << 62
    return 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The whole body once, then what the server says (that the client has gone)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
