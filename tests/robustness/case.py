"""One bad input, how it is sent to a running server, and what every reply to one has to satisfy."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.server import Server

CHAT = "/v1/chat/completions"
SEGMENT = "/v1/segment"

SECONDS = 150
"""A case that takes longer hangs; a machine that is busy with other things is not to fail here."""

MOST_BYTES = 16_384
"""Of an error: a reply must not be a multiple of what caused it."""

REFUSED = frozenset({400})
NOT_FETCHED = frozenset({400, 422})
READ_OR_REFUSED = frozenset({200, 400})
READ = frozenset({200})
CLOSED = 0
"""Stands for a connection that the server closes without an answer."""

# Addresses in memory, tracebacks, places on the server's disk.
_INTERNAL = re.compile(r"0x[0-9a-f]{6,}|Traceback|site-packages|\.py\b|/work/|/root/|/home/")


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 for nothing."""

    status: int
    content: bytes = b""

    def text(self) -> str:
        """The content, for messages."""
        return self.content[:2000].decode("utf-8", "replace")


@dataclass(frozen=True)
class Case:
    """A request; statuses: those that are right. Bodies are made when they are sent."""

    name: str
    body: Callable[[], bytes]
    path: str = CHAT
    statuses: frozenset[int] = REFUSED
    kind: str | None = "application/json"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    authorised: bool = True

    def send(self, server: Server) -> Reply:
        """Over HTTP as it should be spoken."""
        headers = {**({} if self.kind is None else {"Content-Type": self.kind}), **self.headers}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        with server.client(authorised=self.authorised) as client:
            reply = client.request(
                self.method,
                self.path,
                content=self.body(),
                headers=httpx.Headers(raw),
                timeout=SECONDS,
            )
        return Reply(reply.status_code, reply.content)


@dataclass(frozen=True)
class Bytes:
    """What no client library would send. {key} and {host} in the head are the server's.

    unfinished: the server has to wait for more, which does not come: the writing side is closed.
    """

    name: str
    head: str
    body: bytes = b""
    statuses: frozenset[int] = REFUSED
    unfinished: bool = False

    def send(self, server: Server) -> Reply:
        """Write, and read to the end."""
        host = server.url.removeprefix("http://")
        name, port = host.split(":")
        head = self.head.replace("{key}", server.key).replace("{host}", host)
        with socket.create_connection((name, int(port)), timeout=SECONDS) as connection:
            try:
                connection.sendall(head.encode("latin-1") + self.body)
                if self.unfinished:
                    connection.shutdown(socket.SHUT_WR)
                received = _read_all(connection)
            except (ConnectionResetError, BrokenPipeError):
                return Reply(CLOSED)
        if not received:
            return Reply(CLOSED)
        first, _, rest = received.partition(b"\r\n")
        return Reply(int(first.split()[1]), rest.partition(b"\r\n\r\n")[2])


AnyCase = Case | Bytes


def _read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(1 << 16):
        received += part
    return received


def check(case: AnyCase, reply: Reply) -> None:
    """A status that is right, and an error that is short, in OpenAI's form, without internals."""
    assert reply.status in case.statuses, f"{reply.status}: {reply.text()}"
    if reply.status == 200:
        check_masks(reply)
    if reply.status < 400:
        return
    assert len(reply.content) <= MOST_BYTES
    assert not _INTERNAL.search(reply.text()), reply.text()
    if isinstance(case, Case) and reply.status in (400, 413, 415, 422, 503):
        error = json.loads(reply.content)["error"]
        assert error["code"] == reply.status
        assert error["message"].strip()


def check_masks(reply: Reply) -> None:
    """Masks, if it is an answer of ours, have the size that they say."""
    if reply.content.startswith(b"data: "):
        assert reply.content.rstrip().endswith(b"data: [DONE]"), reply.text()
        return
    answer: dict[str, Any] = json.loads(reply.content)
    parts = answer.get("results") or [one["message"] for one in answer.get("choices", [])]
    for part in parts:
        for mask in part.get("masks", []):
            height, width = mask["size"]
            assert height >= 1 and width >= 1
            assert 0 <= mask["area"] <= height * width
