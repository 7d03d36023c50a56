"""An engine in a Ray actor: a server of its own, asked in the way of a batch without Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vllm_csp.serving.batch.asker import Asker
from vllm_csp.serving.batch.connection import new_client
from vllm_csp.serving.batch.embedded import EmbeddedEndpoint, EmbeddedServer
from vllm_csp.serving.batch.endpoint import ServerLostError
from vllm_csp.serving.batch.fleet import Fleet
from vllm_csp.serving.batch.on_ray.pack import Reply, block_rows, reply_block
from vllm_csp.serving.batch.photos import Photos
from vllm_csp.serving.batch.row import Row
from vllm_csp.serving.batch.run import Run
from vllm_csp.serving.batch.stop import Stop
from vllm_csp.serving.batch.tally import Tally
from vllm_csp.serving.server import SECONDS_TO_START

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
STARTS = 2
"""Attempts to start the first server: the GPU may be taken by that of a worker just killed."""


@dataclass(frozen=True)
class Engine:
    """What a worker serves and how it asks; pack_size: requests of one call on their way at once.

    logs: folder on the worker's machine; start_seconds: after which a start has failed.
    """

    checkpoint: str
    flags: tuple[str, ...]
    logs: Path
    pack_size: int
    retries: int
    timeout: float
    start_seconds: float = SECONDS_TO_START


class EngineWorker:
    """Made once in each actor of the pool; calls may come from several threads at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._server = EmbeddedServer(
            engine.checkpoint, engine.flags, engine.logs, engine.start_seconds
        )
        url = self._start()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._told = Reply([])
        self._wait(self._open(url))

    def __call__(self, block: pa.Table) -> pa.Table:
        """The lines of a block of rows (see `pack`)."""
        return reply_block(self._wait(self._answer(block_rows(block))))

    def __del__(self) -> None:
        """Called by Ray Data when an actor is no longer needed, not when it is killed."""
        self._server.stop()

    def _start(self) -> str:
        for _ in range(STARTS - 1):
            with suppress(RuntimeError):
                return self._server.start()
        return self._server.start()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self, url: str) -> None:
        self._stop = Stop()
        client = new_client(self._engine.timeout)
        self._fleet = Fleet([EmbeddedEndpoint(self._server, url, client)], patience=None)
        self._photos = Photos(2 * self._engine.pack_size + 1)
        self._asker = Asker(
            client, self._fleet, self._photos, self._stop, retries=self._engine.retries, model=""
        )

    async def _answer(self, rows: list[Row]) -> Reply:
        lines = Lines()
        run = Run(self._asker, lines, Tally(), self._stop, concurrency=self._engine.pack_size)
        await run.finish(iter([rows]), lambda: None)
        try:
            self._fleet.check()
        except ServerLostError:
            # These rows, and all to come, would fail here: let Ray give them to another worker.
            os.kill(os.getpid(), signal.SIGKILL)
        return self._reply(lines.lines)

    def _reply(self, lines: list[dict[str, Any]]) -> Reply:
        """The lines, with what has been counted since the last reply."""
        now = Reply([], self._photos.num_read, self._asker.num_retries, self._server.num_starts - 1)
        told, self._told = self._told, now
        return Reply(
            lines,
            now.images_read - told.images_read,
            now.retries - told.retries,
            now.server_restarts - told.server_restarts,
        )


class Lines:
    """In the place of the journal, which only the driver writes."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        self.lines.append(line)

    def sync(self) -> None:
        """Nothing is on file."""
