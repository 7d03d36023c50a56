"""The project's own scenes: `scenes.json` as `python -m vllm_csp.scenes` writes it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vllm_csp.datasets.annotations import decode_segmentation, find_image
from vllm_csp.datasets.item import DatasetError, Item, Photo, Raster


def read_scenes(folder: Path, split: str | None = None) -> list[Photo]:
    """Photos with all their questions, of `scenes.json` in the folder or in its part `split`.

    A question has as many expected [SEG]s as masks; none means that the target is not there.
    """
    chosen = folder / split if split else folder
    file = chosen / "scenes.json"
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        content = json.loads(file.read_text())
        for question in content:
            by_image[question["image"]].append(question)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file} is not read: {error!r}. It must be a list of questions, each with `image`, "
            "`kind`, `text`, `answer` and `masks`"
        ) from error
    return [
        Photo(find_image(chosen, name), partial(_items, name, questions))
        for name, questions in sorted(by_image.items())
    ]


def _items(name: str, questions: Sequence[dict[str, Any]]) -> list[Item]:
    return [
        Item(
            key=f"{Path(name).stem}/{number}",
            question=str(one["text"]),
            kind=str(one["kind"]),
            num_masks=len(one["masks"]),
            rasters=partial(_rasters, one["masks"]),
            answer=one.get("answer"),
        )
        for number, one in enumerate(questions)
    ]


def _rasters(masks: Sequence[dict[str, Any]]) -> list[Raster]:
    return [
        decode_segmentation(one, (one["size"][0], one["size"][1])).astype(np.uint8) for one in masks
    ]
