"""How pictures and addresses get to the server: three bodies around the same thing."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from tests.chat import body, user
from tests.pictures import data_url
from tests.robustness.case import CHAT, SEGMENT, Case
from tests.robustness.corpus.pictures import jpeg, not_pictures, others, png

QUESTION = "Please segment the helmet in this image."
FINE_FILE = png.FINE
FINE_URL = data_url(FINE_FILE)
BOUNDARY = "the-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def dumped(document: Any) -> Callable[[], bytes]:
    """A JSON body."""
    return lambda: json.dumps(document).encode()


def chat_about(url: str, **fields: Any) -> dict[str, Any]:
    """A chat request about an image, as short as it can be."""
    options = {"mode": "force"}
    return body(user(QUESTION, url), **{"segmentation": options, **fields})


def segment_about(image: Any, **fields: Any) -> dict[str, Any]:
    """A segment call about an image."""
    return {"image": image, "questions": [QUESTION], **fields}


def part(name: str, content: bytes, more: str = "", head: str | None = None) -> bytes:
    """One part of a form; head: in the place of its disposition."""
    disposition = f'Content-Disposition: form-data; name="{name}"{more}' if head is None else head
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    """A multipart body."""
    return b"".join(parts) + end


def file_part(content: bytes, name: str = "image", filename: str = "a.png") -> bytes:
    """A part with a file."""
    return part(name, content, f'; filename="{filename}"')


def form_about(file: bytes, *more: bytes) -> bytes:
    """A good form about a file."""
    return form(file_part(file), part("questions", QUESTION.encode()), *more)


PICTURES: dict[str, tuple[Callable[[], bytes], frozenset[int]]] = {
    **not_pictures.FILES,
    **png.FILES,
    **jpeg.FILES,
    **others.FILES,
}


def picture_cases() -> dict[str, list[Case]]:
    """Every file in each of three bodies, a block for each kind of body."""
    chats, calls, forms = [], [], []
    for name, (made, statuses) in PICTURES.items():

        def as_url(made: Callable[[], bytes] = made) -> str:
            return data_url(made())

        def as_text(made: Callable[[], bytes] = made) -> str:
            return base64.b64encode(made()).decode()

        def in_chat(url: Callable[[], str] = as_url) -> bytes:
            return json.dumps(chat_about(url())).encode()

        def in_call(text: Callable[[], str] = as_text) -> bytes:
            # base64 of nothing would be no image at all
            return json.dumps(segment_about(text() or "data:image/png;base64,")).encode()

        def in_form(made: Callable[[], bytes] = made) -> bytes:
            return form_about(made())

        chats.append(Case(name, in_chat, CHAT, statuses))
        calls.append(Case(name, in_call, SEGMENT, statuses))
        forms.append(Case(name, in_form, SEGMENT, statuses, FORM))
    return {"pictures in chats": chats, "pictures in calls": calls, "pictures in forms": forms}
