"""A file with one request in each line, in OpenAI's form for batches or in our short one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vllm_csp.serving.batch.row import (
    Rejected,
    Row,
    Subject,
    image_address,
    key_of,
    local_file,
)
from vllm_csp.serving.batch.sources.source import Asking, ImageIds

MOST_BYTES = 64 << 20
"""Of one line."""
MOST_LEVELS = 100
"""Of lists and objects within each other; Python writes no more than a few hundred."""


_Id = Annotated[int, Field(ge=0, lt=1 << 62)]


class _Line(BaseModel):
    custom_id: str = Field(min_length=1, max_length=512)
    image_id: _Id | None = None
    category_id: _Id | None = None
    category: str | None = None


class ChatLine(_Line):
    """OpenAI's form: a chat request. The ids are ours and optional; other fields are ignored."""

    method: Literal["POST"] = "POST"
    url: Literal["/v1/chat/completions"] = "/v1/chat/completions"
    body: dict[str, Any]


class QuestionLine(_Line):
    """The short form; image: a path, which starts in the file's folder, or a URL."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(min_length=1)
    question: str
    mode: Literal["generate", "force"] | None = None
    max_tokens: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class RequestFile:
    """The lines of `path`; images named by relative paths are in `images`."""

    path: Path
    images: Path
    asking: Asking
    image_ids: ClassVar[ImageIds] = "some"

    def rows(self) -> Iterator[Row | Rejected]:
        """One per line that is not blank; a line that is no request is rejected by its number."""
        for place, line in self._lines():
            if len(line) > MOST_BYTES:
                message = f"line {place} is longer than {MOST_BYTES} bytes"
                yield Rejected(place, "bad_line", message)
            elif line.strip():
                yield self._row(place, line)

    def count(self) -> int:
        """Lines that are not blank."""
        return sum(bool(line.strip()) for _, line in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Numbers and lines, of a line that is too long only the beginning."""
        with self.path.open("rb") as file:
            place = 0
            while line := file.readline(MOST_BYTES + 1):
                place += 1
                yield place, line
                while line and not line.endswith(b"\n"):
                    line = file.readline(MOST_BYTES)

    def _row(self, place: int, line: bytes) -> Row | Rejected:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            return Rejected(place, "bad_line", f"line {place} is not JSON: {error}")
        if not isinstance(fields, dict):
            return Rejected(place, "bad_line", f"line {place} is not a JSON object")
        try:
            if "body" in fields:
                return self._chat(place, ChatLine.model_validate(fields))
            return self._question(place, QuestionLine.model_validate(fields))
        except ValidationError as error:
            return Rejected(place, "bad_line", f"line {place}: {_reasons(error)}", _name(fields))

    def _chat(self, place: int, line: ChatLine) -> Row | Rejected:
        body = line.body
        if body.get("stream"):
            message = f"line {place}: a batch has no streams, leave `stream` out"
            return Rejected(place, "bad_line", message, line.custom_id)
        if _is_deep(body):
            message = f"line {place}: more than {MOST_LEVELS} lists and objects within each other"
            return Rejected(place, "bad_line", message, line.custom_id)
        address = (image_address(body) or {}).get("url")
        inline = address is not None and address.startswith("data:")
        subject = _subject(line, None if inline else address, _question(body))
        if address is None:
            return Row(line.custom_id, place, body, subject, line.custom_id)
        file = local_file(address, self.images)
        weight = len(address) if inline else 0
        return Row(line.custom_id, place, body, subject, key_of(address, file), file, weight)

    def _question(self, place: int, line: QuestionLine) -> Row:
        own = {name: getattr(line, name) for name in ("mode", "max_tokens")}
        asking = replace(self.asking, **{key: value for key, value in own.items() if value})
        row = asking.row(
            line.custom_id, place, _subject(line, line.image, line.question), self.images
        )
        if not line.image.startswith("data:"):
            return row
        return replace(row, subject=replace(row.subject, image=None), weight=len(line.image))


def _is_deep(value: Any) -> bool:
    """Whether it has more levels than `MOST_LEVELS`."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        nests = [one for one in level if isinstance(one, dict | list)]
        if not nests:
            return False
        level = [part for one in nests for part in (one.values() if isinstance(one, dict) else one)]
    return True


def _subject(line: _Line, image: str | None, question: str | None) -> Subject:
    return Subject(image, question, line.image_id, line.category_id, line.category)


def _question(body: dict[str, Any]) -> str | None:
    """The text of a chat's last message."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str)) or None


def _name(fields: dict[str, Any]) -> str | None:
    name = fields.get("custom_id")
    return name if isinstance(name, str) and name else None


def _reasons(error: ValidationError) -> str:
    reasons = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)[:3]
    ]
    return "; ".join(reasons)
