"""What `POST /v1/segment` takes."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, FailFast, Field, StringConstraints, model_validator

from vllm_csp.config import ConversationTemplate
from vllm_csp.images import NamedImage
from vllm_csp.serving.protocol import (
    MOST_MODEL_NAME,
    SegmentationChatRequest,
    SegmentationOptions,
)
from vllm_csp.serving.segment.image import image_url

# Passed on as it is: white space at its ends is part of the prompt.
Question = Annotated[str, StringConstraints(pattern=r"\S")]


class SegmentRequest(SegmentationOptions):
    """One image and the questions about it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "image": "data:image/jpeg;base64,...",
                "questions": ["Can you segment the cat in this image?"],
            }
        },
    )

    image: str = Field(
        min_length=1,
        description=(
            "The image: a data URL, an http(s) address that the server may fetch from, or a file's "
            "bytes in base64. One for all questions."
        ),
    )
    questions: Annotated[list[Question], FailFast()] = Field(
        min_length=1,
        description=(
            "Each is answered for itself, all at once; at most `max_questions_per_call` of the "
            "server (64)."
        ),
    )
    mode: Literal["generate", "force"] = Field(
        "force",
        description=(
            "`force`: one mask per question, that of the fixed answer `[SEG].`, without decoding. "
            "`generate`: the model answers, one mask per [SEG] it writes."
        ),
    )
    model: str | None = Field(
        None,
        max_length=MOST_MODEL_NAME,
        description="Name of the served model; may be left out.",
    )
    conv_template: ConversationTemplate | None = Field(
        None, description="Conversation template; default: the server's."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Bound on each answer's tokens in mode `generate`."
    )
    temperature: float = Field(
        0.0, ge=0, le=2, allow_inf_nan=False, description="0 answers greedily."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        """Many of them at once: Pydantic would make an error of each, which takes seconds."""
        unknown = [name for name in data if name not in cls.model_fields] if _many(data) else ()
        if unknown:
            raise ValueError(f"{len(unknown)} fields are unknown, the first is {unknown[0]!r:.200}")
        return data

    @cached_property
    def address(self) -> str:
        """Of the image, as vLLM takes it; one text for all questions, as it may be long."""
        return image_url(self.image)

    def chat_request(self, question: str, image: NamedImage) -> SegmentationChatRequest:
        """The chat request for one of the questions; it has the image until it is rendered.

        Raises `ValueError` for values that a chat request does not take.
        """
        request = SegmentationChatRequest(
            messages=[{"role": "user", "content": question}],
            model=self.model,
            temperature=self.temperature,
            max_completion_tokens=self.max_tokens,
            chat_template_kwargs=(
                {"conv_template": self.conv_template} if self.conv_template else None
            ),
            segmentation=SegmentationOptions(**self._options()),
        )
        # Set afterwards: to look into a long address again takes time.
        parts: list[Any] = [
            {"type": "image_url", "image_url": {"url": self.address}},
            {"type": "text", "text": question},
        ]
        request.messages = [{"role": "user", "content": parts}]
        request._image = image
        return request

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SegmentationOptions.model_fields}


def _many(data: Any) -> bool:
    return isinstance(data, dict) and len(data) > 2 * len(SegmentRequest.model_fields)
