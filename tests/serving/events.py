"""Server-sent events of a streamed answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.server import Server


@dataclass(frozen=True)
class Streamed:
    """All chunks of an answer."""

    chunks: list[dict[str, Any]]

    def deltas(self, index: int = 0) -> list[dict[str, Any]]:
        """What was added to one choice."""
        return [
            choice["delta"]
            for chunk in self.chunks
            for choice in chunk["choices"]
            if choice["index"] == index
        ]

    def text(self, index: int = 0) -> str:
        """The answer put together."""
        return "".join(delta.get("content") or "" for delta in self.deltas(index))

    def masks(self, index: int = 0) -> list[dict[str, Any]]:
        """The masks; they come once, with the reason for the end."""
        [found] = [delta["masks"] for delta in self.deltas(index) if "masks" in delta]
        return found


def stream(server: Server, body: dict[str, Any]) -> Streamed:
    """Ask for a stream and read it to its end."""
    request = {**body, "stream": True}
    with (
        server.client() as client,
        client.stream("POST", "/v1/chat/completions", json=request) as reply,
    ):
        reply.raise_for_status()
        assert reply.headers["content-type"].startswith("text/event-stream")
        return Streamed(list(_chunks(reply.iter_lines())))


def _chunks(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line == "data: [DONE]":
            return
        if line:
            yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without [DONE]")
