"""What every kind of input gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from vllm_csp.serving.batch.row import Rejected, Row, Subject, key_of, local_file
from vllm_csp.serving.client import chat_body

ImageIds = Literal["all", "some", "none"]
"""Whether the rows of an input name their images by numbers, as COCO does."""


class UsageError(ValueError):
    """What was asked of the tool cannot work; the message says what can."""


class Source(Protocol):
    """Rows in the same order and with the same ids each time."""

    @property
    def image_ids(self) -> ImageIds:
        """Which rows have ids of images."""

    def rows(self) -> Iterator[Row | Rejected]:
        """All rows, read as they are taken."""

    def count(self) -> int:
        """How many there are, without keeping them."""


@dataclass(frozen=True)
class Asking:
    """How questions become requests, unless a row says so itself."""

    mode: Literal["generate", "force"] = "generate"
    max_tokens: int | None = None

    def row(self, custom_id: str, place: int, subject: Subject, folder: Path) -> Row:
        """A row about an image: a path, which starts in `folder`, or a URL."""
        address = subject.image or ""
        body = chat_body(address, subject.question or "", mode=self.mode)
        if self.max_tokens is not None:
            body["max_completion_tokens"] = self.max_tokens
        file = local_file(address, folder)
        return Row(custom_id, place, body, subject, key_of(address, file), file)
