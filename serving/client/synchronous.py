"""The blocking client."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from vllm_csp.serving.client.answer import chat_answer, segment_answer
from vllm_csp.serving.client.body import ChatOptions, SegmentOptions, chat_call, segment_call
from vllm_csp.serving.client.connection import CHAT, SEGMENT, connection
from vllm_csp.serving.picture import ImageLike
from vllm_csp.serving.segment.response import SegmentResponse, SegmentResult


class Client:
    """Asks a server about images; keeps connections open, may be used by several threads.

    base_url: with or without `/v1`. api_key: default is `VLLM_API_KEY`. timeout: seconds per call.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout: float = 300,
    ) -> None:
        self._http = httpx.Client(**connection(base_url, api_key, timeout))

    def segment(
        self, image: ImageLike, questions: str | Sequence[str], **options: Unpack[SegmentOptions]
    ) -> SegmentResponse:
        """Masks for each of the questions, in one call.

        Raises `ServerError` if no question could be answered; one that failed beside others carries
        `error` in its result. `httpx.HTTPError`: the server cannot be reached.
        """
        call = segment_call(image, questions, options)
        return segment_answer(self._http.post(SEGMENT, **call))

    def chat(
        self, image: ImageLike, question: str, **options: Unpack[ChatOptions]
    ) -> SegmentResult:
        """The model's own answer to one question, with the masks of its `[SEG]`s.

        Raises as `segment` does.
        """
        call = chat_call(image, question, options)
        return chat_answer(self._http.post(CHAT, **call), question)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
