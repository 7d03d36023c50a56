"""Inputs for the tool, and lines as it writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.pictures import encoded, gradient
from vllm_csp.masks import encode_mask
from vllm_csp.serving.batch.outcome import Outcome
from vllm_csp.serving.batch.row import Row, Subject

QUESTION = "Please segment the helmet in this image."


def write_photos(folder: Path, count: int) -> list[str]:
    """Different small pictures; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"photo-{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(gradient(64 + 16 * number, 48)))
    return names


def question_rows(photos: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Rows in the short form, whose images take turns."""
    return [
        {
            "custom_id": f"row {number}",
            "image": photos[number % len(photos)],
            "question": f"Please segment object {number} in this image.",
            "mode": "force",
        }
        for number in range(count)
    ]


def answered_line(name: str, place: int = 0, image: str = "a.png", **ids: int) -> dict[str, Any]:
    """A line of the output with a mask."""
    mask = encode_mask(np.eye(3, dtype=bool), 0.5, 0, "rle")
    body = {"id": "chatcmpl-1", "choices": [{"message": {"content": "[SEG].", "masks": [mask]}}]}
    row = Row(name, place, {}, Subject(image, QUESTION, **ids), image)
    return Outcome(row, 200, body).line()


def write_lines(file: Path, rows: Iterable[Any]) -> Path:
    """A file with one JSON value in each line; bytes go in as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"\n".join([*lines, b""]))
    return file
