"""What the systems are asked over HTTP: photos' files with their questions, in cells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import count

from PIL import Image

from benchmarks.questions import photo, question

Call = tuple[bytes, list[str]]
"""A photo's file, and what is asked about it."""


def jpeg(number: int) -> bytes:
    """The file of a photo."""
    stream = BytesIO()
    photo(number).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def calls(total: int, per_image: int, first: int) -> list[Call]:
    """Photos from number `first` on, with their questions: `total` questions, or a few more."""
    return [
        (jpeg(first + number), [question(first + number + extra) for extra in range(per_image)])
        for number in range(-(-total // per_image))
    ]


def plan(arguments: argparse.Namespace) -> Iterator[tuple[int, int, list[Call]]]:
    """Cells: clients, questions per image, calls. The same for every system."""
    start = count(1000, 10_000)
    for per_image in arguments.per_image:
        for clients in arguments.concurrency:
            total = max(arguments.requests, 2 * clients * per_image)
            yield clients, per_image, calls(total, per_image, next(start))


def opened(wanted: Sequence[Call]) -> list[tuple[str, Image.Image]]:
    """Each question with its photo, decoded."""
    photos = [(Image.open(BytesIO(file)).convert("RGB"), texts) for file, texts in wanted]
    return [(text, image) for image, texts in photos for text in texts]
