"""One chat answer on its way out: its tokens, its image, its masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image
from vllm.outputs import RequestOutput

from vllm_csp.mask_calls import MaskJob
from vllm_csp.serving.answer_masks import FORCED_TEXT, json_masks, seg_indexes
from vllm_csp.serving.logs.note import RequestNote
from vllm_csp.serving.protocol import SegmentationOptions
from vllm_csp.serving.shared_pixels import KeptPixels
from vllm_csp.serving.statistics import TokenStatistics

if TYPE_CHECKING:
    from vllm_csp.serving.tracing.trace import Trace


@dataclass
class Answer:
    """State of one request between rendering and the last byte.

    schedule: JSON of the request's own schedule, or empty. note: told what came of it.
    request_key: empty without an image. pixels: of the image, for SAM.
    """

    options: SegmentationOptions
    schedule: str
    seg_token_id: int
    max_masks: int
    choices: int
    note: RequestNote
    trace: Trace | None = None
    request_key: str = ""
    pixels: KeptPixels | None = None
    image_key: str = ""
    token_ids: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    num_prompt_tokens: int = 0
    kept_tokens: list[list[int]] = field(default_factory=list)
    released: bool = False
    retried: bool = False

    @property
    def forced(self) -> bool:
        """Whether the answer is fixed."""
        return self.options.mode == "force"

    def take_image(self, conversation: Sequence[Any]) -> Image.Image | None:
        """The image that the renderer left in the conversation, which then has it no more."""
        for message in conversation:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if part["type"] == "image":
                    self.image_key = part["image_key"]
                    image: Image.Image = part.pop("image")
                    return image
        return None

    def mask_job(self, index: int) -> MaskJob | None:
        """What to ask the engine for choice `index`; None when there is nothing to segment."""
        tokens = self.token_ids[index]
        indexes = seg_indexes(tokens, self.seg_token_id, self.max_masks, forced=self.forced)
        if self.pixels is None or not indexes:
            return None
        return MaskJob(
            request_key=self.request_key,
            image_key=self.image_key,
            token_ids=tokens,
            indexes=indexes,
            of_several=self.choices > 1,
            wants_tokens=self.options.show_tokens,
            wants_spans=self.trace is not None,
        )

    def encode(self, packed: dict[str, Any]) -> list[dict[str, Any]]:
        """JSON masks of the engine's packed ones."""
        self.kept_tokens = packed["kept_tokens"] or self.kept_tokens
        if self.trace is not None:
            self.trace.add(packed["spans"])
        return json_masks(packed, self.options.mask_format)

    def stats(self, statistics: TokenStatistics) -> dict[str, Any] | None:
        """The `segmentation` object of the response, if the request wants one."""
        if self.pixels is None or not (self.options.stats or self.options.show_tokens):
            return None
        own = self.options.policy or {}
        figures = statistics.of_prompt(self.num_prompt_tokens, own.get("policy"))
        if self.options.show_tokens:
            everything = [list(range(count)) for count in figures["kept_per_stage"]]
            figures["kept_tokens"] = self.kept_tokens or everything
        return figures


class AnswerTap:
    """Passes engine outputs on, noting each choice's tokens in the answer.

    Texts lose the space that detokenising after the prompt puts before them; a forced answer gets
    its fixed text.
    """

    def __init__(self, answer: Answer, outputs: AsyncIterator[RequestOutput]) -> None:
        self._answer = answer
        self._outputs = outputs
        self._started: set[int] = set()
        self._first: RequestOutput | None = None

    async def lost_image(self) -> bool:
        """Wait for the first output; True, once per answer, if the request must be sent again.

        vLLM's API process counts an image as sent when a request is rendered. If that request never
        reaches the engine (refused, cancelled), the next one about the image comes without pixels
        and ends with an error before its first token; sent again, it carries them.
        """
        self._first = await anext(self._outputs, None)
        if self._first is None or self._answer.retried or self._answer.pixels is None:
            return False
        self._answer.retried = any(
            output.finish_reason == "error" and not output.token_ids
            for output in self._first.outputs
        )
        return self._answer.retried

    async def _all(self) -> AsyncIterator[RequestOutput]:
        if self._first is not None:
            yield self._first
        async for result in self._outputs:
            yield result

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        async for result in self._all():
            self._answer.num_prompt_tokens = len(result.prompt_token_ids or ())
            for output in result.outputs:
                self._answer.token_ids[output.index].extend(output.token_ids)
                if self._answer.forced:
                    if output.finish_reason is not None:
                        output.text, output.finish_reason = FORCED_TEXT, "stop"
                elif output.index not in self._started:
                    output.text = output.text.lstrip(" ")
                    if output.text:
                        self._started.add(output.index)
            yield result
