"""What the clients ask: a fixed set of requests, so that each answer can be compared."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

CHAT = "/v1/chat/completions"
SEGMENT = "/v1/segment"
MODEL = "lisa"
QUESTION = "Please segment object {} in this image."
SIZES = (
    *((64, 48), (80, 60), (96, 200), (200, 96), (33, 120), (640, 480), (1, 1), (120, 33)),
    *((160, 160), (300, 20), (20, 300), (256, 255)),
)
# Sure | , | it | is | [SEG]: an answer of a random model that has masks.
WORDS = [18585, 29892, 372, 338, 32003]

Kind = Literal["forced chat", "chat", "stream", "call", "text"]


@dataclass(frozen=True)
class Job:
    """One request."""

    kind: Kind
    path: str
    body: dict[str, Any]


def picture(width: int, height: int) -> str:
    """A smooth picture as a data URL."""
    plain = Image.linear_gradient("L").resize((width, height))
    turned = plain.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    stream = io.BytesIO()
    Image.merge("RGB", (plain, turned, plain)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def chat(text: str, url: str | None = None, **fields: Any) -> dict[str, Any]:
    """A greedy chat about a picture, or about nothing."""
    parts = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    content = [*parts, {"type": "text", "text": text}]
    message = {"role": "user", "content": content}
    return {"model": MODEL, "temperature": 0, "messages": [message], **fields}


def long_stream(number: int) -> dict[str, Any]:
    """A stream that is still running when its client goes away."""
    url = picture(*SIZES[number % len(SIZES)])
    answer = {"allowed_token_ids": WORDS, "ignore_eos": True, "max_tokens": 400}
    return chat(QUESTION.format(number), url, **answer, stream=True)


def jobs() -> list[Job]:
    """36 requests of all kinds about twelve pictures."""
    found = []
    for number, size in enumerate(SIZES):
        url = picture(*size)
        text = QUESTION.format(number)
        answer = {"allowed_token_ids": WORDS, "ignore_eos": True, "max_tokens": 12 + number}
        forced = {"segmentation": {"mode": "force", "mask_format": ("rle", "png")[number % 2]}}
        found.append(Job("forced chat", CHAT, chat(text, url, **forced)))
        if number % 3 == 0:
            found.append(Job("chat", CHAT, chat(text, url, **answer)))
            found.append(Job("text", CHAT, chat(f"Hello {number}", max_tokens=8)))
        elif number % 3 == 1:
            found.append(Job("stream", CHAT, chat(text, url, **answer, stream=True)))
        questions = [QUESTION.format(f"{number}.{one}") for one in range(3)]
        found.append(Job("call", SEGMENT, {"image": url, "questions": questions}))
    return found
