"""The HTTP client of a batch."""

from __future__ import annotations

import httpx

KEEPALIVE_SECONDS = 3
"""Less than the 5 s after which `vllm serve` closes idle connections."""


def new_client(timeout: float, api_key: str = "") -> httpx.AsyncClient:
    """A client that waits so many seconds for answers, and for nothing else."""
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=httpx.Timeout(timeout, connect=10, pool=None),
        limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
    )
