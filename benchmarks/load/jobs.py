"""What the clients ask: a fixed set of requests, so that each answer can be compared."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

from vllm_csp.scenes import make_sample

CHAT = "/v1/chat/completions"
SEGMENT = "/v1/segment"
MODEL = "lisa"
SIZES = (
    *((64, 48), (80, 60), (96, 200), (200, 96), (33, 120), (640, 480), (1, 1), (120, 33)),
    *((160, 160), (300, 20), (20, 300), (448, 448)),
)
SCENES = 3000
"""The first of the held-out scenes that are asked about."""

Kind = Literal["forced chat", "chat", "stream", "call", "text"]


@dataclass(frozen=True)
class Job:
    """One request."""

    kind: Kind
    path: str
    body: dict[str, Any]


def scene(number: int) -> tuple[str, list[str]]:
    """A scene in one of the sizes, as a data URL, and what is asked about it."""
    sample = make_sample(SCENES + number % len(SIZES), "test")
    stream = io.BytesIO()
    sample.image.resize(SIZES[number % len(SIZES)]).save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    return url, [question.text for question in sample.questions]


def chat(text: str, url: str | None = None, **fields: Any) -> dict[str, Any]:
    """A greedy chat about a picture, or about nothing."""
    parts = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    content = [*parts, {"type": "text", "text": text}]
    message = {"role": "user", "content": content}
    return {"model": MODEL, "temperature": 0, "messages": [message], **fields}


def long_stream(number: int) -> dict[str, Any]:
    """A stream that is still running when its client goes away."""
    url, [text, *_] = scene(number)
    return chat(text, url, ignore_eos=True, max_tokens=400, stream=True)


def jobs() -> list[Job]:
    """36 requests of all kinds about twelve pictures."""
    found = []
    for number in range(len(SIZES)):
        url, [text, *others] = scene(number)
        forced = {"segmentation": {"mode": "force", "mask_format": ("rle", "png")[number % 2]}}
        found.append(Job("forced chat", CHAT, chat(text, url, **forced)))
        if number % 3 == 0:
            found.append(Job("chat", CHAT, chat(text, url, max_tokens=12 + number)))
            found.append(Job("text", CHAT, chat(f"Hello {number}", max_tokens=8)))
        elif number % 3 == 1:
            found.append(Job("stream", CHAT, chat(text, url, max_tokens=12 + number, stream=True)))
        found.append(Job("call", SEGMENT, {"image": url, "questions": others[:3]}))
    return found
