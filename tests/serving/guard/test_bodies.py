"""Bodies that are too large, too slow or too many are refused before a route sees them."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import wait_until
from tests.serving.guard.app import Guarded, guarded
from vllm_csp.serving.limits.bodies import MOST_VALUES

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_mb=1, max_held_body_mb=3, body_seconds=1) as running:
        yield running


def post(app: Guarded, content: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{app.url}/size", content=content, headers=headers, timeout=30)


def refused(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The error, which has OpenAI's form."""
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert error["code"] == status
    assert set(error) == {"message", "type", "param", "code"}
    return error


def nothing_is_held(app: Guarded) -> None:
    """Soon after the answer, which is sent a moment earlier."""
    wait_until(lambda: app.bodies.held_bytes == 0, 5, "nothing is held")


def pieces(size: int) -> Iterator[bytes]:
    """A body whose length is not told."""
    while size > 0:
        yield bytes(min(size, 65536))
        size -= 65536


def talk(app: Guarded, *sent: bytes, pause: float = 0.0) -> bytes:
    """Speak HTTP by hand and give what comes back until the server closes the connection."""
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in sent:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_up_to_the_limit_they_arrive_whole(app: Guarded, size: int) -> None:
    assert post(app, bytes(size)).json() == size
    assert post(app, pieces(size)).json() == size
    nothing_is_held(app)


@pytest.mark.parametrize("size", [LIMIT + 1, 40 * LIMIT])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_larger_ones_are_refused(app: Guarded, size: int, method: str) -> None:
    seen = app.seen
    reply = httpx.request(method, f"{app.url}/size", content=bytes(size), timeout=30)
    assert f"larger than {LIMIT} bytes" in refused(reply, 413)["message"]
    assert app.seen == seen
    nothing_is_held(app)


def test_larger_ones_without_a_length_are_refused(app: Guarded) -> None:
    seen = app.seen
    refused(post(app, pieces(40 * LIMIT)), 413)
    assert app.seen == seen
    nothing_is_held(app)


def test_a_declared_length_is_enough(app: Guarded) -> None:
    """Nothing of the body is waited for; curl's way of asking before it sends."""
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    for length in (LIMIT + 1, 10**18, 10**40):
        began = time.monotonic()
        received = talk(app, head % length)
        if length < 10**40:  # which the HTTP parser refuses
            assert received.startswith(b"HTTP/1.1 413")
            assert b"100 Continue" not in received
        assert time.monotonic() - began < 3


def test_the_next_request_on_a_refused_connection_is_on_a_new_one(app: Guarded) -> None:
    with httpx.Client(base_url=app.url, timeout=30) as client:
        reply = client.post("/size", content=bytes(LIMIT + 1))
        assert (reply.status_code, reply.headers["connection"]) == (413, "close")
        assert client.post("/size", content=b"abc").json() == 3


def test_a_body_that_drips_is_given_up(app: Guarded) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    began = time.monotonic()
    received = talk(app, head, *[b"a"] * 8, pause=0.25)
    assert received.startswith(b"HTTP/1.1 408")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == 408
    assert time.monotonic() - began < 10
    nothing_is_held(app)


def test_all_together_are_bounded(app: Guarded) -> None:
    host, port = app.url.removeprefix("http://").split(":")
    head = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LIMIT
    waiting = [socket.create_connection((host, int(port))) for _ in range(3)]
    for connection in waiting:
        connection.sendall(head + bytes(LIMIT))
    wait_until(lambda: app.bodies.held_bytes == 3 * LIMIT, 10, "three bodies are held")
    error = refused(reply := post(app, b"a"), 503)
    assert "as many request bodies" in error["message"]
    assert reply.headers["retry-after"] == "1"
    for connection in waiting:
        connection.close()
    app.soon(app.let_go.set)
    wait_until(lambda: app.bodies.held_bytes == 0, 10, "nothing is held")
    assert post(app, b"a").json() == 1


def test_who_goes_away_while_sending_leaves_nothing(app: Guarded) -> None:
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n")
        connection.sendall(bytes(300000))
        wait_until(lambda: app.bodies.held_bytes == 300000, 5, "half of it is held")
    wait_until(lambda: app.bodies.held_bytes == 0, 5, "nothing is held")
    assert app.limits.admission.held == 0


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "a", "APPLICATION/JSON"])
@pytest.mark.parametrize("piece", [b"0,", b"[", b'{"":'])
def test_a_body_of_too_many_values_is_refused(app: Guarded, piece: bytes, kind: str) -> None:
    """Nobody parses them, which would hold up all other requests."""
    seen = app.seen
    reply = post(app, b"[" + piece * MOST_VALUES, **{"Content-Type": kind})
    assert f"more than {MOST_VALUES} commas" in refused(reply, 413)["message"]
    assert app.seen == seen
    nothing_is_held(app)


def test_a_form_cannot_be_pretended(app: Guarded) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += b"Content-Type: multipart/form-data\r\nContent-Length: %d\r\n\r\n"
    body = b"," * (MOST_VALUES + 1)
    assert talk(app, head % len(body) + body).startswith(b"HTTP/1.1 413")


def test_pictures_and_some_values_are_not_refused(app: Guarded) -> None:
    some = b"[" + b"0," * (MOST_VALUES - 1)
    assert post(app, some, **{"Content-Type": "application/json"}).json() == len(some)
    image = base64.b64encode(os.urandom(LIMIT // 2))
    assert post(app, image, **{"Content-Type": "application/json"}).json() == len(image)
    form = {"Content-Type": "multipart/form-data; boundary=a"}
    assert post(app, b"," * LIMIT, **form).json() == LIMIT
    nothing_is_held(app)


def test_reading_is_not_limited(app: Guarded) -> None:
    assert httpx.request("GET", f"{app.url}/size", content=bytes(2 * LIMIT)).status_code == 200
