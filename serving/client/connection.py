"""Where the server is and with which key it is asked."""

from __future__ import annotations

import os
from typing import Any

SEGMENT = "/v1/segment"
CHAT = "/v1/chat/completions"


def connection(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's clients.

    base_url: with or without `/v1`. api_key: default is `VLLM_API_KEY`, if set.
    """
    key = api_key or os.environ.get("VLLM_API_KEY")
    return {
        "base_url": base_url.rstrip("/").removesuffix("/v1"),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout,
    }
