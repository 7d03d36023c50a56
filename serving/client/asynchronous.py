"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from vllm_csp.serving.client.answer import chat_answer, segment_answer
from vllm_csp.serving.client.body import ChatOptions, SegmentOptions, chat_call, segment_call
from vllm_csp.serving.client.connection import CHAT, SEGMENT, connection
from vllm_csp.serving.picture import ImageLike
from vllm_csp.serving.segment.response import SegmentResponse, SegmentResult


class AsyncClient:
    """`Client` for asyncio: the same arguments, any number of calls at once."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout: float = 300,
    ) -> None:
        self._http = httpx.AsyncClient(**connection(base_url, api_key, timeout))

    async def segment(
        self, image: ImageLike, questions: str | Sequence[str], **options: Unpack[SegmentOptions]
    ) -> SegmentResponse:
        """Masks for each of the questions; see `Client.segment`."""
        # In a thread: reading and encoding an image takes time.
        call = await asyncio.to_thread(segment_call, image, questions, options)
        return segment_answer(await self._http.post(SEGMENT, **call))

    async def chat(
        self, image: ImageLike, question: str, **options: Unpack[ChatOptions]
    ) -> SegmentResult:
        """The model's own answer to one question; see `Client.chat`."""
        call = await asyncio.to_thread(chat_call, image, question, options)
        return chat_answer(await self._http.post(CHAT, **call), question)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
