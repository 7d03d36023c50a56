"""The servers of a batch: images go round among those that work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self

from vllm_csp.serving.batch.endpoint import Endpoint, ServerLostError

LONGEST_PAUSE = 10.0


class Fleet:
    """Chooses a server for each row, and sets those that fail aside until they are ready again.

    patience: seconds without any usable server after which no more are expected; `None` leaves that
    to the servers' own `revive`. Use as an async context manager.
    """

    def __init__(self, endpoints: Sequence[Endpoint], patience: float | None) -> None:
        self.endpoints = endpoints
        self._patience = patience
        self._lost: str | None = None
        self._changed = asyncio.Event()
        self._dark_since = 0.0
        self._revivals: dict[Endpoint, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for revival in self._revivals.values():
            revival.cancel()
        await asyncio.gather(*self._revivals.values(), return_exceptions=True)

    async def choose(self, turn: int, latest: Endpoint | None = None) -> Endpoint:
        """The server whose turn it is, or the next that is usable; waits while there is none.

        latest: where the row was sent in vain, chosen only if no other is usable.
        Raises `ServerLostError` when none is expected any more.
        """
        first = turn % len(self.endpoints)
        in_turn = [*self.endpoints[first:], *self.endpoints[:first]]
        while True:
            self.check()
            usable = [endpoint for endpoint in in_turn if endpoint.usable]
            if usable:
                return next((one for one in usable if one is not latest), usable[0])
            self._changed.clear()
            await self._changed.wait()

    def check(self) -> None:
        """Raise `ServerLostError` when no server is expected any more."""
        if self._lost is not None:
            raise ServerLostError(self._lost)

    def set_aside(self, endpoint: Endpoint) -> None:
        """Send nothing there before it says that it is ready, which may be at once."""
        if not endpoint.usable:
            return
        endpoint.usable = False
        if not self._any_usable():
            self._dark_since = time.monotonic()
        self._revivals[endpoint] = asyncio.create_task(self._revive(endpoint))

    async def _revive(self, endpoint: Endpoint) -> None:
        pause = 0.25
        try:
            while not await endpoint.revive():
                self._check_patience()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            endpoint.usable = True
        except ServerLostError as error:
            # With patience, no server has answered for as long; without, there is only this one.
            self._lost = str(error)
        self._changed.set()

    def _check_patience(self) -> None:
        dark = time.monotonic() - self._dark_since
        if self._patience is not None and not self._any_usable() and dark > self._patience:
            raise ServerLostError(
                f"no server has answered for {dark:.0f} s: "
                + ", ".join(endpoint.url for endpoint in self.endpoints)
            )

    def _any_usable(self) -> bool:
        return any(endpoint.usable for endpoint in self.endpoints)
