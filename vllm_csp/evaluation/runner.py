"""Asks every question under every policy and scores the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from vllm_csp.datasets.item import Item, Photo
from vllm_csp.evaluation.asker import Asked, Asker
from vllm_csp.evaluation.outcome import Outcome, PolicyResult, mean_costs
from vllm_csp.evaluation.policy_run import PolicyRun
from vllm_csp.evaluation.smaller_image import with_detail_of
from vllm_csp.images import ImageError, to_rgb

One = TypeVar("One")
Question = tuple[Path, Item]


@dataclass(frozen=True)
class Pace:
    """How much is in flight: photos read at a time, questions asked at a time."""

    photos: int = 8
    questions: int = 16


class Runner:
    """Runs that one asker answers, over photos as they come.

    Questions about a photo stay together, so that its encoders run once; several runs take turns on
    the same photos and share the encoders' work too. forced: ask only for what the one mask of a
    fixed answer can give, questions with one target.
    """

    def __init__(
        self, asker: Asker, runs: Sequence[PolicyRun], *, forced: bool, pace: Pace | None = None
    ) -> None:
        self._asker = asker
        self._runs = runs
        self._forced = forced
        self._pace = pace or Pace()
        self._results = [
            PolicyResult(
                run.name,
                run.policy,
                image_scale=run.image_scale,
                sam=run.sam,
                forced=forced,
            )
            for run in runs
        ]
        self._costs: list[list[dict[str, Any]]] = [[] for _ in runs]
        self._seconds = [0.0 for _ in runs]

    def run(
        self, photos: Sequence[Photo], done: Callable[[int], None] = lambda photos: None
    ) -> list[PolicyResult]:
        """Results of the runs, in their order; `done` is told how many photos were finished."""
        # The first answer of an engine also sets things up, and should not count as its speed.
        blank = Image.new("RGB", (64, 64))
        self._asker.ask([Asked("What is this?", blank, None, 0)])
        for some in _batched(photos, self._pace.photos):
            questions = [(photo.path, item) for photo in some for item in photo.items()]
            images = {photo.path: _read(photo.path) for photo in some}
            for number in range(len(self._runs)):
                self._take_turn(number, questions, images)
            done(len(some))
        for number, result in enumerate(self._results):
            result.costs = mean_costs(self._costs[number])
            result.seconds = self._seconds[number] if len(self._runs) == 1 else None
        return self._results

    def _take_turn(
        self, number: int, questions: Sequence[Question], images: dict[Path, Image.Image]
    ) -> None:
        scale, result = self._runs[number].image_scale, self._results[number]
        shown = {path: with_detail_of(image, scale) for path, image in images.items()}
        possible = [
            (path, item) for path, item in questions if item.num_masks == 1 or not self._forced
        ]
        result.skipped += len(questions) - len(possible)
        for part in _batched(possible, self._pace.questions):
            asked = [
                Asked(item.question, shown[path], path if scale == 1 else None, number)
                for path, item in part
            ]
            began = time.perf_counter()
            replies = self._asker.ask(asked)
            self._seconds[number] += time.perf_counter() - began
            for (path, item), reply in zip(part, replies, strict=True):
                result.outcomes.append(Outcome.of(item, path.name, reply))
                self._costs[number].append(reply.cost)


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return to_rgb(opened)
    except (OSError, ImageError) as error:
        raise ValueError(f"photo {path} is not read: {error}") from error


def _batched(sequence: Iterable[One], size: int) -> Iterator[list[One]]:
    rest = iter(sequence)
    while part := list(islice(rest, size)):
        yield part
