"""What a server still holds when nobody waits for an answer."""

from __future__ import annotations

import asyncio
import time

import httpx

from benchmarks.metrics import summed

GAUGES = (
    "vllm_csp:held_streams",
    "vllm_csp:pinned_embeddings",
    "vllm_csp:held_requests",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
)
"""Gauges that are 0 when nobody waits for an answer: queries, embeddings, requests, blocks."""


async def held(url: str, headers: dict[str, str]) -> dict[str, float]:
    """The gauges now."""
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        text = (await client.get("/metrics")).raise_for_status().text
    return summed(text, GAUGES)


async def held_in_the_end(
    url: str, headers: dict[str, str], seconds: float = 120
) -> dict[str, float]:
    """The gauges when all are 0, or after so long."""
    deadline = time.monotonic() + seconds
    while any((found := await held(url, headers)).values()) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return found
