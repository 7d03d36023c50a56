"""Memory of a server's processes while it is under load.

Resident pages of their own only. Those of files come and go with what the kernel needs elsewhere,
and those of the buffers in shared memory through which vLLM's processes talk come one by one until
all of a buffer have been used: neither is a leak.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from statistics import fmean, linear_regression
from typing import Any

import psutil

INTERVAL = 2.0
WARM_UP = 0.5
"""This share of a run fills caches and the allocator's arenas: it says nothing about a leak."""

MEBIBYTE = 1 << 20


class Memory:
    """Samples of all processes below one, without itself."""

    def __init__(self, root: int) -> None:
        self._root = psutil.Process(root)
        self.samples: dict[str, list[tuple[float, float]]] = {}

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Sample in the background."""
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _sample(self) -> None:
        began = time.monotonic()
        while True:
            now = time.monotonic() - began
            for process in self._root.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    name = f"{process.name()} {process.pid}"
                    size = _own_bytes(process) / MEBIBYTE
                    self.samples.setdefault(name, []).append((now, size))
            await asyncio.sleep(INTERVAL)

    def report(self) -> list[dict[str, Any]]:
        """For each process that was there all the time: sizes in MiB and the slope."""
        longest = max((len(samples) for samples in self.samples.values()), default=0)
        return [
            {"process": name, **trend(samples), "mib": series(samples)}
            for name, samples in self.samples.items()
            if len(samples) > 0.8 * longest and samples[-1][1] > 50
        ]


def _own_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def series(samples: list[tuple[float, float]], points: int = 30) -> list[int]:
    """Sizes at equal distances, to see the shape of a growth."""
    step = max(1, len(samples) // points)
    return [round(size) for _, size in samples[::step]]


def trend(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """Least squares over (seconds, MiB) after the warm-up.

    within_noise: the growth over the time looked at is less than what single samples scatter around
    the line, twice, or less than 2 % (heaps with the same in use differ by as much from minute to
    minute); or the process was larger in the warm-up.
    """
    before = samples[: int(WARM_UP * len(samples))]
    after = samples[len(before) :]
    if len(after) < 3:
        return {"first_mib": samples[0][1], "last_mib": samples[-1][1], "within_noise": None}
    times, sizes = zip(*after, strict=True)
    slope, start = linear_regression(times, sizes)
    rest = [size - start - slope * when for when, size in after]
    scatter = math.sqrt(sum(one * one for one in rest) / (len(after) - 2))
    growth = slope * (times[-1] - times[0])
    return {
        "first_mib": round(samples[0][1], 1),
        "warm_mib": round(sizes[0], 1),
        "last_mib": round(sizes[-1], 1),
        "largest_mib": round(max(size for _, size in samples), 1),
        "slope_mib_per_minute": round(60 * slope, 3),
        "scatter_mib": round(scatter, 2),
        "growth_mib": round(growth, 2),
        "within_noise": growth <= max(2 * scatter, 0.02 * fmean(sizes))
        or max(sizes) <= max(size for _, size in before),
    }
