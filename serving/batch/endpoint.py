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

    async def healthy(self) -> bool:
        """Whether it answers and says that it can work."""
        try:
            reply = await self._client.get(f"{self.url}/health", timeout=PROBE_SECONDS)
        except httpx.HTTPError:
            return False
        return reply.status_code == httpx.codes.OK

    async def revive(self) -> bool:
        """Whether it can be used again. Raises `ServerLostError` when it never will."""
        return await self.healthy()

    def note_answer(self) -> None:
        """It has answered a row."""
