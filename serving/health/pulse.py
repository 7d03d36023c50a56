"""Signs of life of the engine."""

from __future__ import annotations

import time
from typing import Any

from vllm.engine.protocol import EngineClient


class Pulse:
    """When the engine last did something for a request, and when it last made a mask.

    Times are of `time.monotonic`; `proven_at` is None before the first mask.
    """

    def __init__(self) -> None:
        self.beat_at = time.monotonic()
        self.proven_at: float | None = None

    def listen(self, engine: EngineClient) -> None:
        """Beat with every output of the engine, also of requests that are answered at the end."""
        core: Any = engine.engine_core  # type: ignore[attr-defined]
        next_output = core.get_output_async

        async def heard() -> Any:
            output = await next_output()
            self.beat_at = time.monotonic()
            return output

        # vLLM's loop looks it up anew for each output.
        core.get_output_async = heard

    def prove(self) -> None:
        """Masks have come."""
        self.beat_at = self.proven_at = time.monotonic()
