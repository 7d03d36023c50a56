"""Signs of life of the engine."""

from __future__ import annotations

import time


class Pulse:
    """When the engine last did something for a request, and when it last made a mask.

    Times are of `time.monotonic`; `proven_at` is None before the first mask.
    """

    def __init__(self) -> None:
        self.beat_at = time.monotonic()
        self.proven_at: float | None = None

    def beat(self) -> None:
        """An output has come."""
        self.beat_at = time.monotonic()

    def prove(self) -> None:
        """Masks have come."""
        self.beat_at = self.proven_at = time.monotonic()
