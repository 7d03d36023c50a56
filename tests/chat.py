"""Bodies of chat requests."""

from __future__ import annotations

from typing import Any

from tests.oracle import Recording
from tests.pictures import data_url

MODEL = "lisa"


def picture_part(url: str) -> dict[str, Any]:
    """An image as a message part."""
    return {"type": "image_url", "image_url": {"url": url}}


def user(text: str, *urls: str) -> dict[str, Any]:
    """A user message: pictures first, then the text."""
    parts = [picture_part(url) for url in urls]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A greedy request."""
    return {"model": MODEL, "temperature": 0, "messages": list(messages), **fields}


def question_body(recording: Recording, **fields: Any) -> dict[str, Any]:
    """The request that asks what an oracle case asks; a forced one says so in `segmentation`."""
    url = data_url(recording.image_file.read_bytes())
    messages: list[dict[str, Any]] = []
    for asked, answered in recording.case.get("history", []):
        messages += [user(asked, *([] if messages else [url]))]
        messages += [{"role": "assistant", "content": answered}]
    messages.append(user(recording.question_text, *([] if messages else [url])))
    if not recording.generated:
        fields["segmentation"] = {"mode": "force", **fields.get("segmentation", {})}
    template = recording.case["conv_template"]
    limit = recording.numbers.get("max_new_tokens", 512)
    return body(
        *messages,
        chat_template_kwargs={"conv_template": template},
        max_completion_tokens=limit,
        **fields,
    )
