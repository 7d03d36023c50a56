"""A server that the tool starts itself, and again when it dies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from vllm_csp.serving.batch.endpoint import Endpoint, ServerLostError
from vllm_csp.serving.server import background_server

# More than one row alone can cause (`asker.MOST_CRASHES`).
RESTARTS_WITHOUT_ANSWER = 5
PROBES = 3


class EmbeddedServer:
    """The process; every start has a log of its own in the folder `logs`."""

    def __init__(self, checkpoint: str, flags: Sequence[str], logs: Path) -> None:
        self.num_starts = 0
        self.checkpoint = checkpoint
        self.flags = tuple(flags)
        self.logs = logs
        self._running = ExitStack()

    @property
    def log(self) -> Path:
        """Of the latest start."""
        return self.logs / f"batch-{os.getpid()}-{self.num_starts}.log"

    def start(self) -> str:
        """Start it, after ending what is left of the one before, and give its URL.

        Raises `RuntimeError` with the end of the log when it does not start.
        """
        self.stop()
        self.num_starts += 1
        self.logs.mkdir(parents=True, exist_ok=True)
        server = background_server(self.checkpoint, self.flags, self.log)
        return self._running.enter_context(server)

    def stop(self) -> None:
        """End it."""
        self._running.close()


class EmbeddedEndpoint(Endpoint):
    """Starts its server again, a few times in a row at most, when it no longer answers."""

    def __init__(self, server: EmbeddedServer, url: str, client: httpx.AsyncClient) -> None:
        super().__init__(url, client)
        self._server = server
        self._without_answer = 0

    async def revive(self) -> bool:
        """Whether it can be used again, if need be after a new start."""
        for _ in range(PROBES):
            if await self.healthy():
                return True
            await asyncio.sleep(1)
        if self._without_answer == RESTARTS_WITHOUT_ANSWER:
            raise ServerLostError(
                f"the server died {self._without_answer + 1} times without an answer in between; "
                f"see {self._server.log}"
            )
        self._without_answer += 1
        try:
            self.url = await asyncio.to_thread(self._server.start)
        except (RuntimeError, OSError) as error:
            raise ServerLostError(str(error)) from error
        return True

    def note_answer(self) -> None:
        """Starts are counted between answers."""
        self._without_answer = 0
