"""A request to stop: no new rows, and nothing that only waits goes on waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """The run was asked to stop before this could happen."""


class Stop:
    """Set once; belongs to one event loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether the run is to stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Stop the run."""
        self._asked.set()

    async def unless(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something; `StoppedError` when the run is to stop first."""
        task = asyncio.create_task(waiting)
        stop = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise StoppedError
            return task.result()
        finally:
            task.cancel()
            stop.cancel()

    async def sleep(self, seconds: float) -> None:
        """A pause, unless the run is to stop."""
        await self.unless(asyncio.sleep(seconds))
