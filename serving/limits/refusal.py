"""Answers to requests that no route is asked about, in OpenAI's form of errors."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 5.0


class RefusalError(Exception):
    """A request that is not let through.

    reason: the label of `vllm_csp:requests_refused_total`. retry_after: seconds, for a 503.
    """

    def __init__(
        self, status: HTTPStatus, reason: str, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """The error as a response."""
        error = {
            "message": str(self),
            "type": self.status.phrase,
            "param": None,
            "code": self.status.value,
        }
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"error": error}, status_code=self.status.value, headers=headers)

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, unread: bool) -> None:
        """Send it; with an `unread` body the connection is closed after it.

        The rest of such a body is thrown away for some seconds: closed at once, the connection
        would be reset, and a client that is still sending would not see the answer.
        """
        response = self.response()
        if unread:
            response.headers["Connection"] = "close"
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": response.body, "more_body": unread})
        if unread:
            if not _waits_for_consent(scope):
                await _throw_away(receive)
            await send({"type": "http.response.body", "body": b""})


def _waits_for_consent(scope: Scope) -> bool:
    """Whether the client sends its body only when asked to, which reading it would do."""
    return any(
        name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
    )


async def _throw_away(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()
    except TimeoutError:
        pass
