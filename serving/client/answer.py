"""Reads a server's answers."""

from __future__ import annotations

import httpx

from vllm_csp.serving.client.error import ServerError
from vllm_csp.serving.segment.response import SegmentResponse, SegmentResult


def segment_answer(response: httpx.Response) -> SegmentResponse:
    """The answer of `/v1/segment`; raises `ServerError` for a refusal."""
    if response.status_code != 200:
        raise ServerError.of(response)
    return SegmentResponse.model_validate(response.json())


def chat_answer(response: httpx.Response, question: str) -> SegmentResult:
    """The answer of a chat completion; raises `ServerError` for a refusal."""
    if response.status_code != 200:
        raise ServerError.of(response)
    completion = response.json()
    [choice] = completion["choices"]
    return SegmentResult(
        question=question,
        answer=choice["message"]["content"],
        finish_reason=choice["finish_reason"],
        masks=choice["message"]["masks"],
        segmentation=completion.get("segmentation"),
    )
