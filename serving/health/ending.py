"""How a server ends: after its requests when it is told to, soon after its engine has died."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.logger import init_logger

from vllm_csp.serving.health.readiness import Readiness
from vllm_csp.serving.limits.middleware import Limits
from vllm_csp.serving.limits.refusal import RefusalError

# vLLM's own way to end when the engine is dead, before any probe could see it.
KEEP_ALIVE = "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"

LOOK_SECONDS = 0.25
LAST_WORDS_SECONDS = 2.0  # in which vLLM answers the requests of a dead engine
NOTICE_SECONDS = 5.0  # for which a server without engine says so
CLOSE_SECONDS = 5.0  # for connections that are still open at the end

logger = init_logger("vllm.plugins.vllm_csp.health")

_engine_died = False


def engine_died() -> bool:
    """Whether a server of this process ended because its engine had died."""
    return _engine_died


class Ending:
    """Ends one API server.

    http: uvicorn's server, once there is one.
    """

    def __init__(
        self,
        engine: EngineClient,
        readiness: Readiness,
        drain_seconds: float,
        http: Callable[[], Any],
    ) -> None:
        self._engine: Any = engine
        self._readiness = readiness
        self._drain_seconds = drain_seconds
        self._http = http

    def closed(self) -> RefusalError | None:
        """Why no request is let in any more, if so."""
        if self._readiness.dead:
            return RefusalError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "engine_dead",
                "the engine has died, and the server ends; please try again on another one",
                retry_after=10,
            )
        if self._readiness.draining:
            return RefusalError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "draining",
                "the server is ending; please try again on another one",
                retry_after=5,
            )
        return None

    def install(self, limits: Limits) -> None:
        """Drain before the engine is shut down, and watch the engine; needs the running loop."""
        loop = asyncio.get_running_loop()
        loop_thread = threading.get_ident()
        shut_down = self._engine.shutdown

        def shut_down_after_draining(timeout: float | None = None) -> None:
            # vLLM calls it in a thread on SIGTERM and SIGINT, and again when it cleans up.
            if threading.get_ident() != loop_thread and not self._readiness.draining:
                self._drain(loop, limits)
                loop.call_soon_threadsafe(loop.call_later, CLOSE_SECONDS, self._force_exit)
            shut_down(timeout=timeout)

        self._engine.shutdown = shut_down_after_draining
        stays = os.environ.get(KEEP_ALIVE, "0") == "1"
        os.environ[KEEP_ALIVE] = "1"
        self._watch = loop.create_task(self._await_death(limits, stays=stays))

    def _drain(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._readiness.draining = True
        self._readiness.state()
        logger.info(
            "draining: %d answers may take %g s", limits.admission.held, self._drain_seconds
        )
        deadline = time.monotonic() + self._drain_seconds
        while limits.admission.held and time.monotonic() < deadline:
            time.sleep(0.05)
        if limits.admission.held:
            ended = RefusalError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_finished",
                "the server ended before the answer was complete; please try again",
                retry_after=1,
            )
            loop.call_soon_threadsafe(limits.end, ended)
            time.sleep(LOOK_SECONDS)
        logger.info("drained")

    async def _await_death(self, limits: Limits, *, stays: bool) -> None:
        global _engine_died
        while not self._engine.errored:
            await asyncio.sleep(LOOK_SECONDS)
        if self._readiness.draining:
            return
        self._readiness.state()
        logger.critical("the engine has died: requests are refused, /health and /ready are 503")
        await asyncio.sleep(LAST_WORDS_SECONDS)
        limits.end(
            RefusalError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "not_finished",
                "the engine died before the answer was complete; please try again",
            )
        )
        if stays:
            return
        await asyncio.sleep(NOTICE_SECONDS)
        _engine_died = True
        logger.critical("the server ends, because its engine has died")
        self._http().should_exit = True
        await asyncio.sleep(CLOSE_SECONDS)
        self._force_exit()

    def _force_exit(self) -> None:
        self._http().force_exit = True
