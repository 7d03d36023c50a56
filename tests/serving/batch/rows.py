"""Inputs for the tool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.pictures import encoded, gradient

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


def write_lines(file: Path, rows: Iterable[Any]) -> Path:
    """A file with one JSON value in each line; bytes go in as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"\n".join([*lines, b""]))
    return file
