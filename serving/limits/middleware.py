"""Every request with a body passes here, behind the key check and in front of all routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.logger import init_logger

from vllm_csp.serving.guard_metrics import GuardMetrics
from vllm_csp.serving.limits.admission import RETRY_AFTER, SLOT, Admission, OverloadError
from vllm_csp.serving.limits.bodies import Bodies, ClientGoneError
from vllm_csp.serving.limits.refusal import RefusalError

METHODS = ("POST", "PUT", "PATCH", "DELETE")

logger = init_logger("vllm.plugins.vllm_csp.limits")


class Limits:
    """Lets a request in, or says why not.

    closed: a refusal for all of them, when the server ends or its engine has.
    """

    def __init__(
        self, bodies: Bodies, admission: Admission, closed: Callable[[], RefusalError | None]
    ) -> None:
        self.admission = admission
        self._bodies = bodies
        self._closed = closed
        self._metrics = GuardMetrics.instance()
        self._ended: RefusalError | None = None

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by `app`, or refuse it."""
        unread = True
        try:
            if (closed := self._closed()) is not None:
                raise closed
            async with self._bodies.held(scope, receive) as read:
                unread = False
                await self._answer(app, scope, read, send)
        except ClientGoneError:
            return
        except RefusalError as refusal:
            self._metrics.refused.labels(reason=refusal.reason).inc()
            await refusal.answer(scope, receive, send, unread=unread)

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            slot = self.admission.enter()
        except OverloadError as error:
            refusal = RefusalError(error.http_status, "queue_full", str(error), RETRY_AFTER)
            await refusal.answer(scope, receive, send, unread=False)
            return
        answer = _Watched(send)
        try:
            scope[SLOT] = slot
            await app(scope, receive, answer)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._ended is None or answer.started or task is None:
                raise
            task.uncancel()
            await self._ended.answer(scope, receive, send, unread=False)
        finally:
            slot.leave()

    def end(self, refusal: RefusalError) -> None:
        """Answer all that is still waited for by `refusal`; begun answers break off."""
        slots = list(self.admission.slots)
        if slots:
            logger.warning("%d requests are ended: %s", len(slots), refusal)
        self._ended = refusal
        for slot in slots:
            self._metrics.refused.labels(reason=refusal.reason).inc()
            if slot.task is not None:
                slot.task.cancel()


class _Watched:
    """Notes that an answer has begun; a 503 of whoever gets a `Retry-After`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if message["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
                message = {**message, "headers": _with_retry_after(message["headers"])}
        await self._send(message)


def _with_retry_after(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    if any(name.lower() == b"retry-after" for name, _ in headers):
        return list(headers)
    return [*headers, (b"retry-after", str(RETRY_AFTER).encode())]


class LimitsMiddleware:
    """Applies `app.state.csp_limits`; without it everything passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] in METHODS:
            limits: Limits | None = getattr(scope["app"].state, "csp_limits", None)
            if limits is not None:
                await limits.serve(self._app, scope, receive, send)
                return
        await self._app(scope, receive, send)
