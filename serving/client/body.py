"""Questions as HTTP bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from vllm_csp.serving.picture import ImageLike, image_address, image_data_url, image_file


class SegmentOptions(TypedDict, total=False):
    """Options of `Client.segment`; what is left out is the server's default.

    docs/segment_api.md explains them.
    """

    mode: Literal["force", "generate"]
    mask_format: Literal["rle", "png"]
    stats: bool
    show_tokens: bool
    policy: Mapping[str, Any]
    conv_template: Literal["llava_v1", "llava_llama_2"]
    max_tokens: int
    temperature: float
    model: str


class ChatOptions(SegmentOptions, total=False):
    """Options of `Client.chat`: those of `segment`, where `mode` is "generate" by default, and
    earlier questions and answers about the image."""

    history: Sequence[tuple[str, str]]


def chat_body(
    image_url: str,
    question: str,
    *,
    model: str | None = None,
    history: Sequence[tuple[str, str]] = (),
    conv_template: str | None = None,
    max_tokens: int | None = None,
    temperature: float = 0,
    **segmentation: Any,
) -> dict[str, Any]:
    """Body of a chat request about one image, decoded greedily if not told otherwise.

    `history`: earlier questions and answers about the image. The rest are fields of `segmentation`.
    """
    messages: list[dict[str, Any]] = []
    for asked, answered in history:
        messages.append({"role": "user", "content": [{"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": answered})
    messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
    messages[0]["content"].insert(0, {"type": "image_url", "image_url": {"url": image_url}})
    optional = {
        "model": model,
        "max_completion_tokens": max_tokens,
        "chat_template_kwargs": {"conv_template": conv_template} if conv_template else None,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    fields = {"temperature": temperature, "segmentation": segmentation}
    return {"messages": messages, **fields, **given}


def chat_call(image: ImageLike, question: str, options: ChatOptions) -> dict[str, Any]:
    """Arguments of httpx's `post` for `/v1/chat/completions`."""
    return {"json": chat_body(image_data_url(image), question, **options)}


def segment_call(
    image: ImageLike, questions: str | Sequence[str], options: SegmentOptions
) -> dict[str, Any]:
    """Arguments of httpx's `post` for `/v1/segment`: JSON with an address, else a form."""
    asked = [questions] if isinstance(questions, str) else list(questions)
    fields: dict[str, Any] = {"questions": asked, **options}
    address = image_address(image)
    if address is not None:
        return {"json": {"image": address, **fields}}
    if "policy" in fields:
        fields["policy"] = json.dumps(fields["policy"])
    return {"data": fields, "files": {"image": ("image", image_file(image))}}
