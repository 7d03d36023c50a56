"""COCO annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_csp.serving.segment.formats.labelled import LabelledMask, label_numbers


def to_coco(
    masks: list[LabelledMask],
    image_id: int,
    category_ids: Mapping[str, int] | None = None,
    first_id: int = 1,
) -> list[dict[str, Any]]:
    """One annotation per mask, as in COCO's `annotations` and, with `score`, its results.

    category_ids: question to category; default: its place among the questions with masks, from 1.
    Raises `KeyError` for a question that is not among them.
    """
    categories = category_ids or label_numbers(masks, first=1)
    return [
        {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": categories[label],
            "segmentation": mask.rle(),
            "bbox": list(mask.bbox),
            "area": mask.area,
            "iscrowd": 0,
            "score": mask.score,
        }
        for number, (label, mask) in enumerate(masks)
    ]
