"""Who is asked: the interface of an engine in this process's care and of a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Asked:
    """A question about a photo as the model shall see it.

    file: the photo's file, if the image is its unchanged content. number: which of the compared
    policies answers, as the asker was given them.
    """

    text: str
    image: Image.Image
    file: Path | None
    number: int


@dataclass(frozen=True)
class Reply:
    """An answer: its text, its masks, what it cost.

    masks: JSON objects, see `serving.segment.response.Mask`. cost: the `segmentation`
    object of a response, see `TokenStatistics.of_prompt`.
    """

    text: str
    masks: Sequence[dict[str, Any]]
    cost: dict[str, Any] = field(default_factory=dict)


class Asker(Protocol):
    """Answers batches of questions, in order."""

    def ask(self, questions: Sequence[Asked]) -> list[Reply]:
        """One reply per question."""

    def close(self) -> None:
        """Free what is held."""
