"""What the systems are asked over HTTP: photos' files with their questions, in cells."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import count, cycle, islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.questions import photo, question
from benchmarks.systems import CHECKED, CHECKED_SCENES
from vllm_csp.scenes import make_sample

Mask = npt.NDArray[np.bool_]

FIRST_SCENE = 10_000
"""Behind those that accuracies are reported of and that tests ask about."""


@dataclass(frozen=True)
class Call:
    """A photo's file and what is asked about it, with the right masks [H, W] if they are known."""

    file: bytes
    questions: tuple[str, ...]
    targets: tuple[Mask, ...] = ()


def calls(total: int, per_image: int, first: int, scenes: bool = False) -> list[Call]:
    """`total` questions, or a few more: about photos from number `first` on, or about scenes."""
    ask = partial(_about_scene if scenes else _about_photo, per_image=per_image)
    numbers = range(first, first + -(-total // per_image))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(ask, numbers))


@dataclass(frozen=True)
class Cell:
    """So many clients, questions per image and questions in all, about pictures of its own."""

    clients: int
    per_image: int
    total: int
    first: int

    def calls(self, scenes: bool) -> list[Call]:
        """What is asked; the same for every system."""
        return calls(self.total, self.per_image, self.first, scenes)


def plan(arguments: argparse.Namespace) -> Iterator[Cell]:
    """The cells: every client asks `--waves` times, and all together `--requests` questions."""
    start = count(1000, 10_000)
    for per_image in arguments.per_image:
        for clients in arguments.concurrency:
            total = max(arguments.requests, arguments.waves * clients * per_image)
            yield Cell(clients, per_image, total, next(start))


def checked_calls(arguments: argparse.Namespace) -> list[Call]:
    """One question each, whose masks are compared and scored."""
    return calls(CHECKED_SCENES if arguments.scenes else CHECKED, 1, 0, arguments.scenes)


def opened(wanted: Sequence[Call]) -> list[tuple[str, Image.Image]]:
    """Each question with its photo, decoded."""
    photos = [(Image.open(BytesIO(one.file)).convert("RGB"), one.questions) for one in wanted]
    return [(text, image) for image, texts in photos for text in texts]


def jpeg(image: Image.Image) -> bytes:
    """The file of a picture."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _about_photo(number: int, per_image: int) -> Call:
    texts = tuple(question(number + extra) for extra in range(per_image))
    return Call(jpeg(photo(number)), texts)


def _about_scene(number: int, per_image: int) -> Call:
    sample = make_sample(FIRST_SCENE + number, "test", questions=2 * per_image + 8)
    single = [one for one in sample.questions if len(one.masks) == 1]
    asked = list(islice(cycle(single), per_image))
    return Call(
        jpeg(sample.image),
        tuple(one.text for one in asked),
        tuple(one.masks[0] for one in asked),
    )
