"""What the chat endpoint takes and returns beyond OpenAI's fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatMessage
from vllm.exceptions import VLLMError

from vllm_csp.images import NamedImage

MOST_MESSAGES = 4096
MOST_MODEL_NAME = 1024


class SegmentationOptions(BaseModel):
    """The request field `segmentation`."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["generate", "force"] = Field(
        "generate",
        description=(
            "`generate`: the model answers, one mask per [SEG] it writes. `force`: the mask of the "
            "fixed answer `[SEG].`, from one prefill without decoding."
        ),
    )
    mask_format: Literal["rle", "png"] = Field(
        "rle", description="COCO run-length encoding in `counts`, or a PNG data URL in `png`."
    )
    stats: bool = Field(False, description="Add a `segmentation` object with token statistics.")
    policy: dict[str, Any] | None = Field(
        None,
        description=(
            "This request's own policy and knobs, as in the server's `csp` setting; it must keep "
            "as many tokens in the same layers as the server's."
        ),
    )
    show_tokens: bool = Field(
        False,
        description="Add `kept_tokens` to it: per stage the image tokens (row-major) it ran on.",
    )


class SegmentationChatRequest(ChatCompletionRequest):
    """OpenAI's chat request with `segmentation` (through `extra_body` in the OpenAI client)."""

    segmentation: SegmentationOptions | None = None

    # Where the request's answer is followed; set by the chat handler.
    _answer: Any = PrivateAttr(default=None)
    # What is behind the address of its image, decoded already.
    _image: NamedImage | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_clearly(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse with a 400 what would end in a 500, or take long to refuse.

        vLLM's own validators look into fields before their types are checked, and fail with
        whatever that raises.
        """
        if isinstance(data, dict):
            _check_sizes(data)
            _check_values(data)
        try:
            return handler(data)
        except (ValidationError, VLLMError, ValueError):
            raise
        except Exception as error:
            raise ValueError(f"a field has a value of a wrong type ({error})") from error


@contextmanager
def decoded_image_in(request: ChatCompletionRequest) -> Iterator[None]:
    """Within it the messages have the decoded image in its address's place, if there is one.

    After it the request has it no more: if it is rendered again, the image is fetched again.
    """
    if not isinstance(request, SegmentationChatRequest) or request._image is None:
        yield
        return
    # One of its own: vLLM's parser keeps it, and is in a reference cycle that stays for a while.
    image, request._image = replace(request._image), None
    part = {"type": "image_pil", "image_pil": image}
    addressed = request.messages
    request.messages = [
        {**message, "content": [part if "image_url" in one else one for one in message["content"]]}
        for message in addressed
    ]
    try:
        yield
    finally:
        request.messages = addressed
        image.let_go()


class SegmentationMessage(ChatMessage):
    """An answer with its masks, in order of the [SEG] tokens."""

    masks: list[dict[str, object]] = Field(default_factory=list)


def _check_sizes(data: dict[str, Any]) -> None:
    messages = data.get("messages")
    if isinstance(messages, list):
        parts = [one.get("content") for one in messages if isinstance(one, dict)]
        count = len(messages) + sum(len(part) for part in parts if isinstance(part, list))
        if count > MOST_MESSAGES:
            raise ValueError(f"{count} messages and parts are too many, at most {MOST_MESSAGES}")
    model = data.get("model")
    if isinstance(model, str) and len(model) > MOST_MODEL_NAME:
        raise ValueError(f"no model has a name of {len(model)} letters")


def _check_values(value: Any) -> None:
    """Refuse what JSON can write and the engine cannot be sent.

    Halves of surrogate pairs, which UTF-8 cannot write, and integers of more than 64 bits.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and not one.isascii():
            try:
                one.encode()
            except UnicodeEncodeError as error:
                raise ValueError("a text has half of a surrogate pair") from error
        elif isinstance(one, int) and not -(1 << 63) <= one < 1 << 63:
            raise ValueError("an integer has more than 64 bits")
