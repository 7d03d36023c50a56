"""The run itself: rows in, a bounded number on their way, each finished one into the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from vllm_csp.serving.batch.asker import Asker
from vllm_csp.serving.batch.outcome import rejected_line
from vllm_csp.serving.batch.row import Rejected, Row
from vllm_csp.serving.batch.stop import Stop, StoppedError
from vllm_csp.serving.batch.tally import Tally

SECONDS_BETWEEN_SYNCS = 1.0

Work = Iterator[list[Row] | Rejected]


class Lines(Protocol):
    """Where finished rows go: a `Journal`."""

    def append(self, line: dict[str, Any]) -> None:
        """Take one line."""

    def sync(self) -> None:
        """Wait until all are safe."""


class Run:
    """Asks all rows of some work."""

    def __init__(
        self, asker: Asker, journal: Lines, tally: Tally, stop: Stop, *, concurrency: int
    ) -> None:
        self._asker = asker
        self._journal = journal
        self._tally = tally
        self._stop = stop
        self._free = asyncio.Semaphore(concurrency)

    async def finish(self, work: Work, tick: Callable[[], None]) -> None:
        """Ask everything; `tick` is called once a second.

        After a stop it ends when the rows on their way have been answered. Raises what reading the
        work or writing the journal raises.
        """
        async with ticking(self._journal, tick), asyncio.TaskGroup() as tasks:
            await self._feed(work, tasks)

    async def _feed(self, work: Work, tasks: asyncio.TaskGroup) -> None:
        turn = 0
        while not self._stop.asked:
            # Reading blocks, and at times for long.
            item = await asyncio.to_thread(next, work, None)
            if item is None:
                return
            if isinstance(item, Rejected):
                record_rejected(item, self._journal, self._tally)
                continue
            turn += 1
            for row in item:
                try:
                    await self._stop.unless(self._free.acquire())
                except StoppedError:
                    return
                tasks.create_task(self._ask(row, turn))

    async def _ask(self, row: Row, turn: int) -> None:
        try:
            outcome = await self._asker.ask(row, turn)
        except StoppedError:
            return
        finally:
            self._free.release()
        line = outcome.line()
        self._journal.append(line)
        self._tally.count(line)


@asynccontextmanager
async def ticking(journal: Lines, tick: Callable[[], None]) -> AsyncIterator[None]:
    """Sync a journal and call `tick` once a second, and sync once more at the end.

    What fails there ends what goes on within. Of several errors only the first is raised.
    """

    async def keep_ticking() -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_SYNCS)
            await asyncio.to_thread(journal.sync)
            tick()

    try:
        async with asyncio.TaskGroup() as tasks:
            ticker = tasks.create_task(keep_ticking())
            yield
            ticker.cancel()
    except ExceptionGroup as group:
        # One full disk fails many rows at once.
        raise _first(group) from group
    finally:
        await asyncio.to_thread(journal.sync)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def record_rejected(rejected: Rejected, journal: Lines, tally: Tally) -> None:
    """Put a row that is not asked into the journal."""
    journal.append(rejected_line(rejected))
    tally.failures[rejected.code] += 1
