"""A server that the tool starts itself, and again when it dies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from vllm_csp.serving.batch.endpoint import Endpoint, ServerLostError
from vllm_csp.serving.server import SECONDS_TO_START, background_server

# More than one row alone can cause (`asker.MOST_CRASHES`).
RESTARTS_WITHOUT_ANSWER = 5
PROBES = 3
"""Without any answer, after which it is dead."""
NOT_READY_SECONDS = 30
"""After which a server that answers, but is not ready, is taken for stuck."""


class EmbeddedServer:
    """The process; every start has a log of its own in the folder `logs`.

    start_seconds: after which a start has failed.
    """

    def __init__(
        self,
        checkpoint: str,
        flags: Sequence[str],
        logs: Path,
        start_seconds: float = SECONDS_TO_START,
    ) -> None:
        self.num_starts = 0
        self.checkpoint = checkpoint
        self.flags = tuple(flags)
        self.logs = logs
        self.start_seconds = start_seconds
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
        server = background_server(self.checkpoint, self.flags, self.log, self.start_seconds)
        return self._running.enter_context(server)

    def stop(self) -> None:
        """End it."""
        self._running.close()


class EmbeddedEndpoint(Endpoint):
    """Starts its server again, a few times in a row at most, when it is dead or stuck."""

    def __init__(self, server: EmbeddedServer, url: str, client: httpx.AsyncClient) -> None:
        super().__init__(url, client)
        self._server = server
        self._without_answer = 0

    async def revive(self) -> bool:
        """Whether it can be used again, if need be after a new start."""
        if await self._recovers():
            return True
        if self._without_answer == RESTARTS_WITHOUT_ANSWER:
            raise ServerLostError(
                f"the server failed {self._without_answer + 1} times without an answer in between; "
                f"see {self._server.log}"
            )
        self._without_answer += 1
        try:
            self.url = await asyncio.to_thread(self._server.start)
        except (RuntimeError, OSError) as error:
            raise ServerLostError(str(error)) from error
        return True

    async def _recovers(self) -> bool:
        """Whether it is ready, at once or after a while."""
        deadline = time.monotonic() + NOT_READY_SECONDS
        silent = 0
        while silent < PROBES and time.monotonic() < deadline:
            try:
                if await self.ready():
                    return True
            except httpx.HTTPError:
                silent += 1
            await asyncio.sleep(1)
        return False

    def note_answer(self) -> None:
        """Starts are counted between answers."""
        self._without_answer = 0
