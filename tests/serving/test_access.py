"""`--api-key` guards every route that this package adds."""

from __future__ import annotations

import socket

import httpx
import pytest
from fastapi.routing import APIRoute
from vllm.entrypoints.serve.middleware.authenticate import GUARDED_PREFIX

from tests.chat import question_body
from tests.oracle import recording
from tests.server import Server
from vllm_csp.serving.endpoint import router

ROUTES = [
    (method, route.path)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]


def test_every_route_is_of_a_kind_that_is_checked_here() -> None:
    assert ROUTES
    assert len(ROUTES) == len(router.routes)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic a-key-of-the-tests", "a-key"])
def test_without_the_key_nothing_is_answered(
    server: Server, method: str, path: str, header: str | None
) -> None:
    assert path.startswith(GUARDED_PREFIX)
    headers = {} if header is None else {"Authorization": header}
    body = question_body(recording("d01-answer"))
    reply = httpx.request(method, server.url + path, json=body, headers=headers, timeout=60)
    assert reply.status_code == 401
    assert "choices" not in reply.json()


def test_without_the_key_no_body_is_read(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head % 10**12)
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_ready_needs_no_key_and_tells_a_state(server: Server) -> None:
    reply = httpx.get(f"{server.url}/ready", timeout=60)
    assert (reply.status_code, reply.json()) == (200, {"state": "ready"})


def test_with_the_key_it_is(server: Server) -> None:
    assert server.chat(question_body(recording("d01-forced0"))).status_code == 200
