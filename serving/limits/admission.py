"""How many answers may be in the making."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError, VLLMValidationError

from vllm_csp.serving.guard_metrics import GuardMetrics

SLOT = "vllm_csp.slot"
RETRY_AFTER = 1


class OverloadError(GracefulHTTPError):
    """There is no room; vLLM's handlers make a 503 of it."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the server works on as many questions as it may ({limit}); please try again later",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class Admission:
    """Counts the answers that are waited for, in this process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.slots: set[Slot] = set()
        self._metrics = GuardMetrics.instance()

    def enter(self) -> Slot:
        """Room for one answer. Raises `OverloadError`."""
        slot = Slot(self)
        slot.grow(1)
        self.slots.add(slot)
        return slot

    def take(self, count: int) -> None:
        """Count some more. Raises `OverloadError`."""
        if self.held + count > self.limit:
            self._metrics.refused.labels(reason="queue_full").inc()
            raise OverloadError(self.limit)
        self.held += count
        self._metrics.held_requests.set(self.held)

    def give_back(self, slot: Slot) -> None:
        """Forget a request."""
        self.slots.discard(slot)
        self.held -= slot.count
        self._metrics.held_requests.set(self.held)


class Slot:
    """The room of one HTTP request, and the task that answers it."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.count = 0
        self.task = asyncio.current_task()

    def grow(self, count: int) -> None:
        """Room for more answers of the same request.

        Raises `OverloadError` (503), or `VLLMValidationError` (400) if there never is so much room.
        """
        if self.count + count > self._admission.limit:
            raise VLLMValidationError(
                f"this server works on at most {self._admission.limit} questions at a time, and "
                f"{self.count + count} were asked at once",
                parameter=None,
            )
        self._admission.take(count)
        self.count += count

    def leave(self) -> None:
        """The request has been answered."""
        self._admission.give_back(self)


def count_answers(scope: Mapping[str, Any], count: int) -> None:
    """Note that a request wants `count` answers instead of one; see `Slot.grow`."""
    slot: Slot | None = scope.get(SLOT)
    if slot is not None and count > 1:
        slot.grow(count - 1)
