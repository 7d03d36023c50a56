"""Lets requests through together, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A request that may be what kills the server is sent alone, so that it harms no other."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._together = 0
        self._alone = False

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """With others."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone)
            self._together += 1
        try:
            yield
        finally:
            async with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nothing else between here and the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone)
            self._alone = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._together == 0)
            yield
        finally:
            async with self._changed:
                self._alone = False
                self._changed.notify_all()
