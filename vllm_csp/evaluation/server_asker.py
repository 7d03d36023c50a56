"""Asks a running server, several questions at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from vllm_csp.config import ConversationTemplate
from vllm_csp.evaluation.asker import Asked, Reply
from vllm_csp.serving.client import ChatOptions, Client

CONCURRENCY = 16
TIME_LIMIT = 600.0


class ServerAsker:
    """Questions over HTTP; a policy's settings go along as the request's own ones.

    base_url: with or without `/v1`. policies: settings of each compared policy, empty for the
    server's own.
    """

    def __init__(
        self,
        base_url: str,
        policies: Sequence[Mapping[str, Any]],
        *,
        mode: Literal["force", "generate"] = "force",
        template: ConversationTemplate = "llava_v1",
        max_tokens: int = 64,
        api_key: str = "",
    ) -> None:
        self._policies = policies
        self._options: ChatOptions = {
            "mode": mode,
            "stats": True,
            "conv_template": template,
            "max_tokens": max_tokens,
        }
        self._client = Client(base_url, api_key=api_key, timeout=TIME_LIMIT)
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
        options = self._options
        if policy := self._policies[asked.number]:
            options = {**options, "policy": policy}
        answer = self._client.chat(asked.file or asked.image, asked.text, **options)
        masks = [mask.model_dump() for mask in answer.masks]
        return Reply(answer.answer or "", masks, answer.segmentation or {})
