"""A server that answers chats."""

from __future__ import annotations

import httpx

from vllm_csp.serving.batch.gate import Gate

PROBE_SECONDS = 10


class ServerLostError(RuntimeError):
    """A server that will not come back."""


class Endpoint:
    """A running server, which this tool neither starts nor stops.

    usable: whether requests go there; set aside by the `Fleet` after a failure.
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.usable = True
        self.gate = Gate()
        self._client = client

    async def ready(self) -> bool:
        """Whether it says that it can work. Raises `httpx.HTTPError` when it says nothing."""
        # Not /health, which is 200 while an engine is stuck or a server ends.
        reply = await self._get("/ready")
        if reply.status_code == httpx.codes.NOT_FOUND:  # A server without our routes.
            reply = await self._get("/health")
        return reply.status_code == httpx.codes.OK

    async def revive(self) -> bool:
        """Whether it can be used again. Raises `ServerLostError` when it never will."""
        try:
            return await self.ready()
        except httpx.HTTPError:
            return False

    def note_answer(self) -> None:
        """It has answered a row."""

    async def _get(self, path: str) -> httpx.Response:
        return await self._client.get(self.url + path, timeout=PROBE_SECONDS)
