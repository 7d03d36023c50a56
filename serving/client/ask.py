"""One question to a server, without keeping a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from vllm_csp.serving.client.body import chat_body
from vllm_csp.serving.client.connection import CHAT, connection
from vllm_csp.serving.client.error import ServerError
from vllm_csp.serving.picture import image_data_url


def ask_server(
    base_url: str,
    image: Path,
    question: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    timeout: float = 300,
    **segmentation: Any,
) -> dict[str, Any]:
    """The chat completion, as JSON, for a question about an image file.

    Raises `ServerError` with the server's message for a refused request, `httpx.HTTPError` when the
    server cannot be reached.
    """
    body = chat_body(image_data_url(image), question, model=model, **segmentation)
    with httpx.Client(**connection(base_url, api_key, timeout)) as client:
        response = client.post(CHAT, json=body)
    if response.status_code != 200:
        raise ServerError.of(response)
    answer: dict[str, Any] = response.json()
    return answer
