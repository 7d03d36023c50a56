"""How much the masks of two systems agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from benchmarks.calls import Mask


def overlaps(masks: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """IoU of each mask of an answer (`size`, `counts`) with its counterpart.

    Raises ValueError if there are not as many on both sides.
    """
    pairs = zip(masks, others, strict=True)
    return [float(coco.iou([_rle(one)], [_rle(two)], [0])[0][0]) for one, two in pairs]


def accuracy(answers: Sequence[Sequence[dict[str, Any]]], targets: Sequence[Mask]) -> float:
    """gIoU: the mean over questions of the IoU of an answer's first mask, 0 if it has none.

    Raises ValueError if there are not as many answers as targets.
    """
    found = []
    for masks, target in zip(answers, targets, strict=True):
        right = coco.encode(np.asfortranarray(target.astype(np.uint8)))
        found.append(float(coco.iou([_rle(masks[0])], [right], [0])[0][0]) if masks else 0.0)
    return sum(found) / len(found)


def _rle(mask: dict[str, Any]) -> dict[str, Any]:
    return {"size": mask["size"], "counts": mask["counts"].encode("ascii")}
