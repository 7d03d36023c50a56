"""How much the masks of two systems agree, and how right they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from benchmarks.calls import Mask
from vllm_csp.evaluation.metrics import Overlap, Tally
from vllm_csp.masks import decode_mask


def overlaps(masks: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """IoU of each mask of an answer (`size`, `counts`) with its counterpart.

    Raises ValueError if there are not as many on both sides.
    """
    pairs = zip(masks, others, strict=True)
    return [float(coco.iou([_rle(one)], [_rle(two)], [0])[0][0]) for one, two in pairs]


def accuracy(answers: Sequence[Sequence[dict[str, Any]]], targets: Sequence[Mask]) -> float:
    """gIoU of the first masks of the answers, as `vllm-csp eval` has it; none counts as empty.

    Raises ValueError if there are not as many answers as targets.
    """
    tally = Tally()
    for masks, target in zip(answers, targets, strict=True):
        given = decode_mask(masks[0]) if masks else np.zeros_like(target)
        tally.add(Overlap.of(given, target.astype(np.uint8)))
    return tally.giou


def _rle(mask: dict[str, Any]) -> dict[str, Any]:
    return {"size": mask["size"], "counts": mask["counts"].encode("ascii")}
