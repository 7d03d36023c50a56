"""Answers as texts and masks, and whether two agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.load.jobs import SEGMENT, Job
from benchmarks.overlap import iou

LEAST_IOU = 0.999
"""Kernels round differently for other batch sizes; `tests/serving/test_concurrency.py` as well."""


@dataclass(frozen=True)
class Answer:
    """All texts and all masks of one reply."""

    texts: Sequence[str]
    masks: Sequence[dict[str, Any]]


def read_answer(job: Job, content: bytes) -> Answer:
    """Read a whole reply. Raises `ValueError` for one that is none."""
    if job.body.get("stream"):
        return _read_stream(content)
    reply = json.loads(content)
    if job.path == SEGMENT:
        results = reply["results"]
        if errors := [one["error"] for one in results if one.get("error")]:
            raise ValueError(str(errors[0]))
        masks = [mask for one in results for mask in one["masks"]]
        return Answer([one["answer"] for one in results], masks)
    message = reply["choices"][0]["message"]
    return Answer([message["content"]], message["masks"])


def _read_stream(content: bytes) -> Answer:
    text, masks, ended = "", [], False
    for line in content.decode().splitlines():
        if line == "data: [DONE]":
            ended = True
        elif line.startswith("data: "):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise ValueError(str(chunk["error"]))
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                masks += choice["delta"].get("masks") or []
    if not ended:
        raise ValueError("the stream ended without [DONE]")
    return Answer([text], masks)


def difference(answer: Answer, expected: Answer) -> str:
    """What differs from the answer that the same request got alone; empty if nothing does."""
    if list(answer.texts) != list(expected.texts):
        return f"texts {answer.texts!r:.200}, alone {expected.texts!r:.200}"
    if len(answer.masks) != len(expected.masks):
        return f"{len(answer.masks)} masks, alone {len(expected.masks)}"
    for number, (mask, other) in enumerate(zip(answer.masks, expected.masks, strict=True)):
        if mask["size"] != other["size"]:
            return f"mask {number} has {mask['size']} pixels, alone {other['size']}"
        # Mostly all pixels are the same: then nothing need be decoded.
        same = mask.get("counts", "a PNG") == other.get("counts")
        if not same and (agreement := iou(mask, other)) < LEAST_IOU:
            return f"mask {number} agrees to {agreement:.4f} with the one alone"
    return ""
