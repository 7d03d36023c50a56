"""Sends a row to a server, again where that may help, and says what became of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from vllm_csp.serving.batch.endpoint import Endpoint, ServerLostError
from vllm_csp.serving.batch.fleet import Fleet
from vllm_csp.serving.batch.outcome import OK, Failure, Outcome, masks_of
from vllm_csp.serving.batch.photos import Photos
from vllm_csp.serving.batch.retry import PassingError, asked_pause, pause_before
from vllm_csp.serving.batch.row import Row
from vllm_csp.serving.batch.stop import Stop

PASSING = frozenset({408, 425, 429, 502, 503, 504})
CRASHES_BEFORE_ALONE = 2
MOST_CRASHES = 4


@dataclass
class _Request:
    """A row on its way.

    crashes: how often a server broke off while it worked on it; latest: where it was sent last.
    """

    row: Row
    turn: int
    content: bytes
    crashes: int = 0
    latest: Endpoint | None = None


class Asker:
    """Asks the servers of a fleet.

    model: name to send in the place of the rows' own; "" sends none, `None` leaves them.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        fleet: Fleet,
        photos: Photos,
        stop: Stop,
        *,
        retries: int,
        model: str | None,
    ) -> None:
        self.num_retries = 0
        self._client = client
        self._fleet = fleet
        self._photos = photos
        self._stop = stop
        self._retries = retries
        self._model = model

    async def ask(self, row: Row, turn: int) -> Outcome:
        """The outcome of a row; rows of one `turn` go to one server while it works.

        Raises `StoppedError` when the run is to stop while the row only waits.
        """
        try:
            self._fleet.check()
            request = _Request(row, turn, await self._content(row))
            async for attempt in self._attempts():
                with attempt:
                    return await self._attempt(request)
        except PassingError as error:
            return error.outcome
        except ServerLostError as error:
            return Outcome(row, failure=Failure("server_unreachable", str(error)))
        except OSError as error:
            reason = f"cannot read {row.file}: {error.strerror or error}"
            return Outcome(row, failure=Failure("image_not_read", reason))
        raise AssertionError("tenacity ends with a result or an exception")

    def _attempts(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(self._retries + 1),
            wait=pause_before,
            sleep=self._stop.sleep,
            before_sleep=self._count_retry,
            reraise=True,
        )

    def _count_retry(self, _: RetryCallState) -> None:
        self.num_retries += 1

    async def _content(self, row: Row) -> bytes:
        url = None if row.file is None else await self._photos.data_url(row.file)
        # Megabytes of JSON would hold up all other rows.
        return await asyncio.to_thread(_encoded, row, url, self._model)

    async def _attempt(self, request: _Request) -> Outcome:
        endpoint = await self._stop.unless(self._fleet.choose(request.turn, request.latest))
        request.latest = endpoint
        alone = request.crashes >= CRASHES_BEFORE_ALONE
        async with endpoint.gate.alone() if alone else endpoint.gate.together():
            try:
                reply = await self._post(endpoint, request)
            except httpx.TransportError as error:
                return self._unanswered(endpoint, request, error)
        return self._answered(endpoint, request, reply)

    async def _post(self, endpoint: Endpoint, request: _Request) -> httpx.Response:
        return await self._client.post(
            f"{endpoint.url}/v1/chat/completions",
            content=request.content,
            headers={"Content-Type": "application/json"},
        )

    def _unanswered(
        self, endpoint: Endpoint, request: _Request, error: httpx.TransportError
    ) -> Outcome:
        self._fleet.set_aside(endpoint)
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            outcome = Outcome(request.row, failure=Failure("not_connected", reason))
        elif isinstance(error, httpx.TimeoutException):
            outcome = Outcome(request.row, failure=Failure("timeout", reason))
        else:
            outcome = Outcome(request.row, failure=Failure("connection_lost", reason))
            return _crashed(request, outcome)
        raise PassingError(outcome)

    def _answered(self, endpoint: Endpoint, request: _Request, reply: httpx.Response) -> Outcome:
        outcome = read_reply(request.row, reply)
        if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            self._fleet.set_aside(endpoint)
        if reply.status_code in PASSING:
            raise PassingError(outcome, asked_pause(reply))
        # What vLLM answers while its engine dies.
        if reply.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
            return _crashed(request, outcome)
        endpoint.note_answer()
        return outcome


def _crashed(request: _Request, outcome: Outcome) -> Outcome:
    request.crashes += 1
    if request.crashes >= MOST_CRASHES:
        return outcome
    raise PassingError(outcome)


def _encoded(row: Row, url: str | None, model: str | None) -> bytes:
    body = row.body if url is None else row.body_with(url)
    if model is not None:
        body = {name: value for name, value in body.items() if name != "model"}
        body.update({"model": model} if model else {})
    return json.dumps(body).encode("ascii")


def read_reply(row: Row, reply: httpx.Response) -> Outcome:
    """What a server's reply means for its row."""
    try:
        body: Any = reply.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        shown = {"text": reply.text[:1000]}
        failure = Failure(f"http_{reply.status_code}", f"no JSON object: {reply.text[:200]}")
        return Outcome(row, reply.status_code, shown, failure)
    return Outcome(row, reply.status_code, body, _failure(reply.status_code, body))


def _failure(status: int, body: dict[str, Any]) -> Failure | None:
    try:
        if status != OK:
            return Failure(f"http_{status}", str(body["error"]["message"]))
        masks_of(body)
    except (KeyError, TypeError):
        if status != OK:
            return Failure(f"http_{status}", json.dumps(body)[:200])
        return Failure("no_masks", "the answer has no field `masks`: is the server's plugin on?")
    return None
