"""How much the masks of two systems agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco


def overlaps(masks: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """IoU of each mask of an answer (`size`, `counts`) with its counterpart.

    Raises ValueError if there are not as many on both sides.
    """
    pairs = zip(masks, others, strict=True)
    return [float(coco.iou([_rle(one)], [_rle(two)], [0])[0][0]) for one, two in pairs]


def _rle(mask: dict[str, Any]) -> dict[str, Any]:
    return {"size": mask["size"], "counts": mask["counts"].encode("ascii")}
