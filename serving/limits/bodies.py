"""Request bodies, read whole before any route sees them, and no further than they may go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.limits.refusal import RefusalError

MOST_VALUES = 1 << 17
"""Of a JSON body. Each becomes an object that is looked at: a million hold all requests up for a
second, and fit into 2 MB. Base64 has none."""

_SEPARATORS = b",[{"


class ClientGoneError(Exception):
    """The client closed the connection before its body was complete."""


class Bodies:
    """Bounds each body, its values, all bodies held together, and the time that a body may take."""

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
        size = values = 0
        form = _is_form(scope)
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
                        if not form:
                            values += len(part) - len(part.translate(None, _SEPARATORS))
                        self._check(size, values)
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

    def _check(self, size: int, values: int) -> None:
        if size > self._limit:
            raise self._too_large()
        if values > MOST_VALUES:
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "body_too_large",
                f"the body has more than {MOST_VALUES} commas, brackets and braces",
            )
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
    length = Headers(scope=scope).get("content-length", "")
    if not length.isdecimal():
        return 0
    # More digits than Python converts are more bytes than there are.
    return int(length) if len(length) < 20 else 1 << 62


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lstrip().lower().startswith("multipart/")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The whole body once, then what the server says (that the client has gone)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
