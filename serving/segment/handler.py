"""Answers `POST /v1/segment`: each question is a chat request about the one decoded image."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TypeAlias

from fastapi import Request
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.logger import init_logger
from vllm.v1.engine.exceptions import EngineDeadError

from vllm_csp.images import NamedImage
from vllm_csp.serving.chat import SegmentationChat
from vllm_csp.serving.limits.admission import count_answers
from vllm_csp.serving.segment.image import fetch_image
from vllm_csp.serving.segment.request import SegmentRequest
from vllm_csp.serving.segment.response import (
    ImageSize,
    Mask,
    SegmentError,
    SegmentResponse,
    SegmentResult,
    SegmentUsage,
)

logger = init_logger(__name__)

ChatReply: TypeAlias = ChatCompletionResponse | ErrorResponse


class SegmentHandler:
    """Puts the questions of a call to the chat handler, all at once."""

    def __init__(self, chat: SegmentationChat) -> None:
        self._chat = chat

    async def segment(
        self, request: SegmentRequest, raw_request: Request
    ) -> SegmentResponse | ErrorResponse:
        """ChatReply a call; an error only if no question at all could be answered.

        Raises `VLLMValidationError` (400) for too many questions and for an image that is none.
        """
        limit = self._chat.settings.max_questions_per_call
        if len(request.questions) > limit:
            raise VLLMValidationError(
                f"{len(request.questions)} questions are too many for one call, at most {limit}: "
                "send several calls (the image stays encoded)",
                parameter="questions",
            )
        count_answers(raw_request.scope, len(request.questions))
        # Before the image is fetched: whether there is room for as many requests.
        self._chat._preflight(len(request.questions))
        image = await fetch_image(request.address, self._chat.model_config)
        size = ImageSize(width=image.image.width, height=image.image.height)
        call_id = raw_request.headers.get("x-request-id") or uuid.uuid4().hex
        asked = [
            self._ask(request, question, image, _numbered(raw_request, call_id, number))
            for number, question in enumerate(request.questions)
        ]
        # Nobody is to hold it any longer than until all questions are rendered.
        del image
        answers = await asyncio.gather(*asked)
        return _response(f"seg-{call_id}", request, size, answers)

    async def _ask(
        self, request: SegmentRequest, question: str, image: NamedImage, raw_request: Request
    ) -> ChatReply:
        try:
            chat_request = request.chat_request(question, image)
            del image
            answer = await self._chat.create_chat_completion(chat_request, raw_request)
        except EngineDeadError:
            raise  # vLLM's handler for it ends the server
        except Exception as error:
            if not isinstance(error, (VLLMError, ValueError)):
                logger.exception("a question of /v1/segment failed")
            return create_error_response(error)
        assert isinstance(answer, (ChatCompletionResponse, ErrorResponse))  # never streamed
        return answer


def _numbered(raw_request: Request, call_id: str, number: int) -> Request:
    """The same request under an id of its own, by which the engine tells the questions apart."""
    headers = [
        (name, value) for name, value in raw_request.scope["headers"] if name != b"x-request-id"
    ]
    headers.append((b"x-request-id", f"{call_id}-{number}".encode("latin-1")))
    return Request({**raw_request.scope, "headers": headers})


def _response(
    call_id: str, request: SegmentRequest, size: ImageSize, answers: list[ChatReply]
) -> SegmentResponse | ErrorResponse:
    answered = [answer for answer in answers if isinstance(answer, ChatCompletionResponse)]
    if not answered:
        failed = answers[0]
        assert isinstance(failed, ErrorResponse)
        return failed
    usage = SegmentUsage()
    for answer in answered:
        usage.prompt_tokens += answer.usage.prompt_tokens
        usage.completion_tokens += answer.usage.completion_tokens or 0
        usage.total_tokens += answer.usage.total_tokens
    return SegmentResponse(
        id=call_id,
        created=int(time.time()),
        model=answered[0].model,
        image=size,
        results=[
            _result(question, answer)
            for question, answer in zip(request.questions, answers, strict=True)
        ],
        usage=usage,
    )


def _result(question: str, answer: ChatReply) -> SegmentResult:
    if isinstance(answer, ErrorResponse):
        error = answer.error
        return SegmentResult(
            question=question,
            error=SegmentError(
                message=error.message, type=error.type, param=error.param, code=error.code
            ),
        )
    [choice] = answer.choices
    return SegmentResult(
        question=question,
        answer=choice.message.content or "",
        finish_reason=choice.finish_reason,
        masks=[Mask(**mask) for mask in choice.message.masks],
        segmentation=getattr(answer, "segmentation", None),
    )
