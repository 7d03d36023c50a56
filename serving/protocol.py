"""What the chat endpoint takes and returns beyond OpenAI's fields."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatMessage


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


class SegmentationMessage(ChatMessage):
    """An answer with its masks, in order of the [SEG] tokens."""

    masks: list[dict[str, object]] = Field(default_factory=list)
