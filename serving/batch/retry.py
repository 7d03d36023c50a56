"""When a failed request is sent again, and how long after."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx
from tenacity import RetryCallState, wait_random_exponential

from vllm_csp.serving.batch.outcome import Outcome

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_ASKED_PAUSE = 600.0

_GROWING = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)


class PassingError(Exception):
    """A failure that may pass; outcome: what is recorded if it does not; pause: at least this."""

    def __init__(self, outcome: Outcome, pause: float = 0.0) -> None:
        super().__init__(outcome.failure)
        self.outcome = outcome
        self.pause = pause


def pause_before(state: RetryCallState) -> float:
    """Seconds to wait: random, up to twice as long each time, and never less than was asked for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause if isinstance(error, PassingError) else 0.0
    # The random part comes on top, or all rows refused together would come again together.
    return asked + _GROWING(state)


def asked_pause(reply: httpx.Response) -> float:
    """Seconds that a reply's `Retry-After` asks for, as a number or a date; 0 without one."""
    text = reply.headers.get("retry-after", "").strip()
    try:
        seconds = float(text) if text else 0.0
    except ValueError:
        seconds = _seconds_until(text)
    # NaN compares false with everything.
    return min(seconds, LONGEST_ASKED_PAUSE) if seconds > 0 else 0.0


def _seconds_until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
