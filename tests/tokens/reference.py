"""The meaning of schedules and batches, token by token in plain Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Request:
    """One request of a step, and which image tokens each stage keeps of it."""

    computed: int
    scheduled: int
    prompt: int
    image_start: int
    image_len: int
    kept: list[list[int]]


def keeps(request: Request, stage: int, position: int) -> bool:
    """Whether the stage runs on the token at that position."""
    inside = request.image_start <= position < request.image_start + request.image_len
    return not inside or position - request.image_start in request.kept[stage]


def rank(request: Request, stage: int, position: int) -> int:
    """How many tokens before it the stage keeps."""
    return sum(keeps(request, stage, p) for p in range(position))


def stage_rows(requests: list[Request], stage: int) -> tuple[list[int], list[int], list[int]]:
    """Rows, ranks and owners of the stage's compact batch."""
    rows, ranks, owners, row = [], [], [], 0
    for owner, request in enumerate(requests):
        for position in range(request.computed, request.computed + request.scheduled):
            if keeps(request, stage, position):
                rows.append(row)
                ranks.append(rank(request, stage, position))
                owners.append(owner)
            row += 1
    return rows, ranks, owners


def has_image_now(request: Request) -> bool:
    """Whether the image's rows are in this step."""
    last = request.computed + request.scheduled
    inside = request.computed <= request.image_start
    return request.image_len > 0 and inside and request.image_start + request.image_len <= last
