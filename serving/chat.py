"""vLLM's chat completion with masks added to its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from PIL import Image
from vllm.config import VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMValidationError
from vllm.outputs import RequestOutput

from vllm_csp.config import CspConfig
from vllm_csp.kv.tracker import NO_IMAGE_KEY, SAME_IMAGE_KEY, SCHEDULE_KEY
from vllm_csp.media.memory import ImageMemory
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY
from vllm_csp.readout.request_keys import give_key, take_back
from vllm_csp.serving.answer import Answer, AnswerTap
from vllm_csp.serving.guard_metrics import GuardMetrics
from vllm_csp.serving.health.pulse import Pulse
from vllm_csp.serving.limits.admission import count_answers
from vllm_csp.serving.logs.note import note_of
from vllm_csp.serving.mask_client import MaskClient
from vllm_csp.serving.metrics import Metrics
from vllm_csp.serving.protocol import (
    SegmentationChatRequest,
    SegmentationMessage,
    SegmentationOptions,
    decoded_image_in,
)
from vllm_csp.serving.shared_pixels import SharedPixels
from vllm_csp.serving.statistics import TokenStatistics
from vllm_csp.serving.tracing.current import trace_of

# Names in `vllm_xargs` that only the server gives.
RESERVED_KEYS = {REQUEST_KEY, IMAGE_KEY, SCHEDULE_KEY, NO_IMAGE_KEY, SAME_IMAGE_KEY}


class SegmentationChat(OpenAIServingChat):
    """Follows each answer's tokens, and asks the engine for the masks of its [SEG]s."""

    masks: MaskClient
    pixels: SharedPixels
    settings: CspConfig
    statistics: TokenStatistics
    metrics: Metrics
    pulse: Pulse

    @classmethod
    def adopt(cls, chat: OpenAIServingChat, config: VllmConfig) -> SegmentationChat:
        """Take over a chat handler that vLLM has set up, with all its settings."""
        adopted = cls.__new__(cls)
        adopted.__dict__.update(chat.__dict__)
        adopted.settings = CspConfig.from_additional_config(config.additional_config)
        adopted.masks = MaskClient(chat.engine_client)
        adopted.pixels = SharedPixels(adopted.settings.sam_image_size, ImageMemory.instance())
        adopted.statistics = TokenStatistics(config)
        adopted.metrics = Metrics.instance()
        ImageMemory.instance().bound(
            adopted.settings.server.max_held_image_mb << 20,
            GuardMetrics.instance().refused.labels(reason="images_full").inc,
        )
        adopted.pulse = Pulse()
        return adopted

    async def create_chat_completion(
        self, request: ChatCompletionRequest, raw_request: Request | None = None
    ) -> AsyncGenerator[str, None] | ChatCompletionResponse | ErrorResponse:
        """Answer one chat request.

        Raises `VLLMValidationError` (a 400) for options that exclude each other.
        """
        if not isinstance(request, SegmentationChatRequest):
            # Routes of vLLM that know only its own class, such as /invocations.
            request = SegmentationChatRequest(**request.model_dump(exclude_unset=True))
        options = request.segmentation
        if options is not None and not _has_image(request):
            raise VLLMValidationError(
                "`segmentation` needs an image: add an `image_url` part to a user message",
                parameter="segmentation",
            )
        answer = Answer(
            options=options or SegmentationOptions(),
            schedule=self._own_schedule(options),
            seg_token_id=self.renderer.get_tokenizer().seg_token_id,
            max_masks=self.settings.max_masks_per_answer,
            choices=request.n or 1,
            note=note_of(raw_request),
            trace=trace_of(raw_request),
        )
        _check(request, answer.options)
        if raw_request is not None:
            count_answers(raw_request.scope, request.n or 1)
        answer.note.questions += 1
        request._answer = answer
        try:
            result = await super().create_chat_completion(request, raw_request)
        except BaseException:
            self._release(answer)
            raise
        if isinstance(result, (ErrorResponse, ChatCompletionResponse)):
            self._release(answer)
            return result
        return await _started(result)

    async def render_chat_request(self, request: ChatCompletionRequest) -> Any:
        """Render, and mark the engine request with its own key and its image's.

        Nothing should be refused after this: vLLM has noted the image as sent to the engine.
        """
        answer = _answer_of(request)
        try:
            with decoded_image_in(request):
                result = await super().render_chat_request(request)
        except Image.DecompressionBombError as error:
            # vLLM's reader lets Pillow's own limit through as a server error.
            raise VLLMValidationError(
                f"the image has too many pixels: {error}", parameter="image_url"
            ) from error
        if isinstance(result, ErrorResponse):
            return result
        image = answer.take_image(result[0])
        if image is not None:
            answer.pixels = self.pixels.of(answer.image_key, image)
            answer.request_key = answer.request_key or give_key()
            request.vllm_xargs = {
                **(request.vllm_xargs or {}),
                REQUEST_KEY: answer.request_key,
                IMAGE_KEY: answer.image_key,
                **({SCHEDULE_KEY: answer.schedule} if answer.schedule else {}),
            }
        return result

    def _own_schedule(self, options: SegmentationOptions | None) -> str:
        if options is None or options.policy is None:
            return ""
        try:
            return self.statistics.own_schedule(options.policy).model_dump_json()
        except ValueError as error:
            raise VLLMValidationError(str(error), parameter="segmentation.policy") from error

    async def chat_completion_full_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> ErrorResponse | ChatCompletionResponse:
        """The whole answer, masks in each choice's message."""
        answer = _answer_of(request)
        tap = AnswerTap(answer, result_generator)
        if await tap.lost_image():
            retried = await self._create_chat_completion(request)
            assert isinstance(retried, (ErrorResponse, ChatCompletionResponse))
            return retried
        response = await super().chat_completion_full_generator(request, tap, *args, **kwargs)
        if isinstance(response, ErrorResponse):
            return response
        masks = await asyncio.gather(
            *(self._masks_of(answer, choice.index) for choice in response.choices)
        )
        for choice, found in zip(response.choices, masks, strict=True):
            choice.message = SegmentationMessage(**choice.message.model_dump(), masks=found)
        if (figures := answer.stats(self.statistics)) is not None:
            response.segmentation = figures
        return response

    async def chat_completion_stream_generator(
        self,
        request: ChatCompletionRequest,
        result_generator: AsyncIterator[RequestOutput],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        """The answer in chunks; a choice's last chunk carries its masks in `delta.masks`."""
        answer = _answer_of(request)
        tap = AnswerTap(answer, result_generator)
        chunks = super().chat_completion_stream_generator(request, tap, *args, **kwargs)
        try:
            # An error here comes before the first chunk: it is the whole response's.
            if await tap.lost_image():
                retried = await self._create_chat_completion(request)
                assert isinstance(retried, AsyncGenerator)
                async for chunk in retried:
                    yield chunk
                return
            try:
                async for chunk in chunks:
                    yield await self._with_masks(chunk, answer)
            except Exception as error:
                yield f"data: {self.create_streaming_error_response(error)}\n\n"
                yield "data: [DONE]\n\n"
        finally:
            self._release(answer)

    async def _with_masks(self, chunk: str, answer: Answer) -> str:
        if '"finish_reason":"' not in chunk:
            return chunk
        payload = json.loads(chunk.removeprefix("data: "))
        for choice in payload["choices"]:
            if choice.get("finish_reason"):
                choice["delta"]["masks"] = await self._masks_of(answer, choice["index"])
                if (figures := answer.stats(self.statistics)) is not None:
                    payload["segmentation"] = figures
        return f"data: {json.dumps(payload)}\n\n"

    async def _masks_of(self, answer: Answer, index: int) -> list[dict[str, Any]]:
        job = answer.mask_job(index)
        if job is None:
            return []
        assert answer.pixels is not None
        packed = await self.masks.decode(job, answer.pixels)
        masks = await asyncio.to_thread(answer.encode, packed)
        self.metrics.masks.inc(len(masks))
        self.pulse.prove()
        answer.note.masks += len(masks)
        return masks

    def _release(self, answer: Answer) -> None:
        if answer.pixels is not None and not answer.released:
            answer.released = True
            take_back(answer.request_key)
            if answer.num_prompt_tokens:
                statistics = self.statistics
                self.metrics.observe_image(
                    statistics.schedule.kept_per_stage, statistics.kept_ratio
                )
            self.masks.release(answer.request_key)


async def _started(chunks: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """The chunks, once the first is there: what the engine refuses is then still a 4xx."""
    first = await anext(chunks)

    async def whole() -> AsyncGenerator[str, None]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return whole()


def _answer_of(request: ChatCompletionRequest) -> Answer:
    assert isinstance(request, SegmentationChatRequest)
    answer: Answer = request._answer
    return answer


def _has_image(request: ChatCompletionRequest) -> bool:
    contents = [one.get("content") for one in request.messages if isinstance(one, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any("image" in str(part.get("type")) for part in parts if isinstance(part, dict))


def _check(request: ChatCompletionRequest, options: SegmentationOptions) -> None:
    if request.use_beam_search:
        raise VLLMValidationError(
            "beam search gives no masks; use sampling or greedy decoding",
            parameter="use_beam_search",
        )
    reserved = RESERVED_KEYS & set(request.vllm_xargs or {})
    if reserved:
        raise VLLMValidationError(
            f"`vllm_xargs` {sorted(reserved)} are the server's own", parameter="vllm_xargs"
        )
    if request.truncate_prompt_tokens is not None and _has_image(request):
        # The image's place would be lost, or the end that asks for an answer.
        raise VLLMValidationError(
            "a prompt with an image cannot be truncated", parameter="truncate_prompt_tokens"
        )
    unknown = set(request.chat_template_kwargs or {}) - {"conv_template"}
    if unknown:
        raise VLLMValidationError(
            f"unknown chat_template_kwargs {sorted(unknown)}; LISA takes `conv_template`",
            parameter="chat_template_kwargs",
        )
    if options.mode != "force":
        return
    if (request.n or 1) > 1:
        raise VLLMValidationError("mode `force` has one answer: n must be 1", parameter="n")
    if request.logprobs:
        raise VLLMValidationError(
            "mode `force` samples nothing: leave `logprobs` out", parameter="logprobs"
        )
    # One prefill: the mask's query is the row of the last prompt token.
    request.max_completion_tokens = request.max_tokens = 1
    request.min_tokens, request.temperature = 0, 0.0
