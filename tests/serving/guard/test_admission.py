"""As many answers in the making as there may be, and who has to wait is told when to come again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus

import httpx
import pytest

from tests.server import wait_until
from tests.serving.guard.app import Guarded, guarded
from tests.serving.guard.test_bodies import refused
from vllm_csp.serving.guard_metrics import GuardMetrics
from vllm_csp.serving.limits.refusal import RefusalError


@pytest.fixture
def app() -> Iterator[Guarded]:
    with guarded(max_held_requests=4) as running:
        yield running


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def post(app: Guarded, path: str, content: bytes = b"") -> httpx.Response:
    return httpx.post(app.url + path, content=content, timeout=30)


def wait_for(app: Guarded, count: int) -> None:
    wait_until(lambda: app.limits.admission.held == count, 10, f"{count} answers are in the making")


def refusals(reason: str) -> float:
    return GuardMetrics.instance().refused.labels(reason=reason)._value.get()


def test_one_too_many_is_refused(app: Guarded, callers: ThreadPoolExecutor) -> None:
    before = refusals("queue_full")
    waiting = [callers.submit(post, app, "/wait") for _ in range(4)]
    wait_for(app, 4)
    reply = post(app, "/size")
    assert "as many questions as it may (4)" in refused(reply, 503)["message"]
    assert reply.headers["retry-after"] == "1"
    assert refusals("queue_full") == before + 1
    assert app.seen == 0
    app.soon(app.let_go.set)
    assert [one.result().status_code for one in waiting] == [200] * 4
    wait_for(app, 0)
    assert post(app, "/size").status_code == 200


def test_the_questions_of_a_call_are_counted(app: Guarded, callers: ThreadPoolExecutor) -> None:
    three = callers.submit(post, app, "/many", b"3")
    wait_for(app, 3)
    reply = post(app, "/many", b"2")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    wait_for(app, 3)
    one = callers.submit(post, app, "/many", b"1")
    wait_for(app, 4)
    app.soon(app.let_go.set)
    assert three.result().status_code == one.result().status_code == 200
    wait_for(app, 0)


def test_refusals_of_others_say_when_to_come_again(app: Guarded) -> None:
    assert post(app, "/busy").headers["retry-after"] == "1"


def test_a_closed_server_refuses_everything_but_reading(app: Guarded) -> None:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    app.closed = RefusalError(status, "draining", "the server is ending", retry_after=5)
    reply = post(app, "/size", b"a")
    assert refused(reply, 503)["message"] == "the server is ending"
    assert reply.headers["retry-after"] == "5"
    assert httpx.get(f"{app.url}/size").status_code == 200


def streamed(app: Guarded) -> bytes:
    received = b""
    with httpx.stream("POST", f"{app.url}/stream", timeout=30) as reply:
        try:
            for part in reply.iter_raw():
                received += part
        except httpx.RemoteProtocolError:
            received += b" (broken off)"
    return received


def test_what_is_not_finished_at_the_end_is_answered(
    app: Guarded, callers: ThreadPoolExecutor
) -> None:
    waiting: list[Future[httpx.Response]] = [callers.submit(post, app, "/wait") for _ in range(2)]
    stream = callers.submit(streamed, app)
    wait_for(app, 3)
    app.soon(
        app.limits.end,
        RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, "not_finished", "the engine died"),
    )
    for one in waiting:
        assert refused(one.result(), 500)["message"] == "the engine died"
    assert stream.result() == b"begun (broken off)"
    wait_for(app, 0)
