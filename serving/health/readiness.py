"""The server's state, from what is known of its engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from vllm.exceptions import GracefulHTTPError
from vllm.logger import init_logger

from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.guard_metrics import GuardMetrics
from vllm_csp.serving.health.pulse import Pulse

logger = init_logger("vllm.plugins.vllm_csp.health")


class State(StrEnum):
    """What GET /ready says; only `READY` is a 200."""

    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    STUCK = "stuck"
    DRAINING = "draining"
    DEAD = "dead"


class Readiness:
    """Has masks made when none was for a while, and judges by what comes of it.

    A mask that a client got is as good a proof as one made for this purpose, so a busy server makes
    none. A probe may wait in the queue as long as others get on; the engine is stuck when a probe
    waits and nothing comes out at all.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        pulse: Pulse,
        settings: ServerSettings,
        engine_errored: Callable[[], bool],
    ) -> None:
        self.draining = False
        self._engine_errored = engine_errored
        self._probe = probe
        self._pulse = pulse
        self._settings = settings
        self._metrics = GuardMetrics.instance()
        self._running: asyncio.Task[None] | None = None
        self._doubted_at: float | None = None
        self._failed_at: float | None = None

    @property
    def dead(self) -> bool:
        """Whether the engine has died; one that is shut down by a draining server has not."""
        return not self.draining and self._engine_errored()

    def state(self) -> State:
        """The state now; does not wait."""
        found = self._state()
        self._metrics.ready.set(found is State.READY)
        return found

    def _state(self) -> State:
        if self.dead:
            return State.DEAD
        if self.draining:
            return State.DRAINING
        if self._unanswered(self._failed_at):
            return State.FAILING
        if self._unanswered(self._doubted_at):
            assert self._doubted_at is not None
            silent_since = max(self._doubted_at, self._pulse.beat_at)
            if time.monotonic() - silent_since > self._settings.stuck_seconds:
                return State.STUCK
        return State.STARTING if self._pulse.proven_at is None else State.READY

    def _unanswered(self, moment: float | None) -> bool:
        """Whether no mask has come since a moment; False if there was no such moment."""
        proven = self._pulse.proven_at
        return moment is not None and (proven is None or proven < moment)

    def look(self) -> None:
        """Start a probe if the last mask is too old and none is under way."""
        proven, now = self._pulse.proven_at, time.monotonic()
        old = proven is None or now - proven >= self._settings.probe_seconds
        wanted = old or self._unanswered(self._failed_at)
        if not wanted or self._running is not None or self.dead or self.draining:
            return
        if not self._unanswered(self._doubted_at):
            self._doubted_at = now
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._probe()
        except GracefulHTTPError:
            # No room in the queue. Whether others get on shows in the pulse; asked again later.
            pass
        except Exception as error:
            self._failed_at = time.monotonic()
            self._metrics.probes.labels(outcome="error").inc()
            logger.error("no mask could be made: %s: %s", type(error).__name__, error)
        else:
            if self._pulse.proven_at is None or self._unanswered(self._failed_at):
                logger.info("a mask was made: the server is ready")
            self._metrics.probes.labels(outcome="mask").inc()
            self._pulse.prove()
        finally:
            self._running = None
