"""Asks a running server for masks."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx


class ServerError(RuntimeError):
    """The server refused a request; the message is the server's."""


def image_data_url(path: Path) -> str:
    """An image file as a data URL; the server looks at the bytes, not at the type."""
    return "data:image/*;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def chat_body(
    image_url: str, question: str, *, model: str | None = None, **segmentation: Any
) -> dict[str, Any]:
    """Body of a chat request about one image, decoded greedily."""
    parts = [
        {"type": "image_url", "image_url": {"url": image_url}},
        {"type": "text", "text": question},
    ]
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "segmentation": segmentation,
    }
    return body if model is None else {**body, "model": model}


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
    """The chat completion for a question about an image file.

    Raises `ServerError` with the server's message for a refused request, `httpx.HTTPError` when the
    server cannot be reached.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    response = httpx.post(
        f"{base_url.rstrip('/')}/v1/chat/completions",
        json=chat_body(image_data_url(image), question, model=model, **segmentation),
        headers=headers,
        timeout=timeout,
    )
    if response.status_code != 200:
        raise ServerError(_message(response))
    answer: dict[str, Any] = response.json()
    return answer


def _message(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code}: {response.text[:300]}"
