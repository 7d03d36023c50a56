"""What the API process and the engine's worker say to each other about masks."""

from __future__ import annotations

from typing import Any, TypedDict


class MaskJob(TypedDict):
    """One finished answer: its request, image, token ids, and which of them want a mask.

    of_several: its request has further choices (n > 1). wants_tokens: also tell which image tokens
    each stage kept. wants_spans: and what was done when.
    """

    request_key: str
    image_key: str
    token_ids: list[int]
    indexes: list[int]
    of_several: bool
    wants_tokens: bool
    wants_spans: bool


class ImagePixels(TypedDict):
    """An image for SAM: uint8 RGB bytes of `shape` (h, w, 3), and its original (height, width)."""

    image_key: str
    pixels: bytes
    shape: list[int]
    original_size: list[int]


class WorkerReply(TypedDict):
    """Per job its result (see `MaskWorkerExtension.csp_decode_masks`), and the worker's counters.

    counters: those of `MaskWorkerExtension.csp_held`, and the increments since the last reply, to
    whichever of several API processes that went.
    """

    results: list[dict[str, Any]]
    counters: dict[str, float]
