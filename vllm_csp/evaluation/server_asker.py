"""Asks a running server, several questions at a time."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image

from vllm_csp.config import ConversationTemplate
from vllm_csp.evaluation.asker import Asked, Reply
from vllm_csp.serving.client import ServerError, chat_body, image_data_url

CONCURRENCY = 16
TIME_LIMIT = 600.0


class ServerAsker:
    """Questions over HTTP; a policy's settings go along as the request's own ones.

    policies: settings of each compared policy, empty for the server's own.
    """

    def __init__(
        self,
        base_url: str,
        policies: Sequence[Mapping[str, Any]],
        *,
        mode: str = "force",
        template: ConversationTemplate = "llava_v1",
        max_tokens: int = 64,
        api_key: str = "",
    ) -> None:
        self._policies = policies
        self._mode = mode
        self._fields = {
            "max_completion_tokens": max_tokens,
            "chat_template_kwargs": {"conv_template": template},
        }
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=base_url, headers=headers, timeout=TIME_LIMIT)
        self._pool = ThreadPoolExecutor(CONCURRENCY)

    def ask(self, questions: Sequence[Asked]) -> list[Reply]:
        """See `Asker`.

        Raises: `ServerError` for a refused question, `httpx.HTTPError` without a server.
        """
        return list(self._pool.map(self._ask_one, questions))

    def close(self) -> None:
        """See `Asker`; the server goes on."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _ask_one(self, asked: Asked) -> Reply:
        url = _png_data_url(asked.image) if asked.file is None else image_data_url(asked.file)
        options: dict[str, Any] = {"mode": self._mode, "stats": True}
        if self._policies[asked.number]:
            options["policy"] = dict(self._policies[asked.number])
        body = {**chat_body(url, asked.text, **options), **self._fields}
        response = self._client.post("/v1/chat/completions", json=body)
        if response.status_code != 200:
            raise ServerError(f"{response.status_code}: {response.text[:500]}")
        answer = response.json()
        message = answer["choices"][0]["message"]
        return Reply(message["content"] or "", message["masks"], answer["segmentation"])


def _png_data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
