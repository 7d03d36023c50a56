"""How long images take to encode, without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class EncodeClock:
    """Seconds spent: on a CPU by the clock, on a GPU between two places in the stream."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._under_way: deque[tuple[Any, Any]] = deque()  # torch.cuda.Event

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Around what is launched on the current stream of that device."""
        if device.type != "cuda":
            began = time.monotonic()
            yield
            self._seconds += time.monotonic() - began
            return
        began_at, ended_at = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began_at.record()
        yield
        ended_at.record()
        self._under_way.append((began_at, ended_at))
        self.seconds()  # Who never asks would keep them all.

    def seconds(self) -> float:
        """Of all that is over by now."""
        while self._under_way and self._under_way[0][1].query():
            began_at, ended_at = self._under_way.popleft()
            self._seconds += began_at.elapsed_time(ended_at) / 1e3
        return self._seconds
