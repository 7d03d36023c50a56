"""The engines behind an API server: one, or one per rank of data parallelism."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.v1.engine.core_client import AsyncMPClient

EngineCall = Callable[..., Awaitable[list[Any]]]


def engine_calls(client: EngineClient, method: str) -> list[EngineCall]:
    """For each engine a function that calls `method` on its workers and gives their replies.

    `EngineClient.collective_rpc` reaches all engines but gives only the first one's replies.
    """
    core: AsyncMPClient = client.engine_core  # type: ignore[attr-defined]

    def call_of(engine: bytes) -> EngineCall:
        def call(*args: Any) -> Awaitable[list[Any]]:
            return core._call_utility_async(
                "collective_rpc", method, None, args, None, engine=engine
            )

        return call

    return [call_of(engine) for engine in core.core_engines]
