"""How much the masks of two systems agree, and how right they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.calls import Mask
from vllm_csp.evaluation.metrics import Overlap, Tally
from vllm_csp.masks import decode_mask


def iou(mask: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Intersection over union of two masks as served, or as COCO's run lengths.

    Two empty masks agree. Raises ValueError if the sizes differ.
    """
    one, two = decode_mask(dict(mask)), decode_mask(dict(other))
    if one.shape != two.shape:
        raise ValueError(f"a mask of {mask['size']} pixels and one of {other['size']}")
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def overlaps(masks: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """IoU of each mask of an answer with its counterpart.

    Raises ValueError if there are not as many on both sides.
    """
    return [iou(one, two) for one, two in zip(masks, others, strict=True)]


def accuracy(answers: Sequence[Sequence[dict[str, Any]]], targets: Sequence[Mask]) -> float:
    """gIoU of the first masks of the answers, as `vllm-csp eval` has it; none counts as empty.

    Raises ValueError if there are not as many answers as targets.
    """
    tally = Tally()
    for masks, target in zip(answers, targets, strict=True):
        given = decode_mask(masks[0]) if masks else np.zeros_like(target)
        tally.add(Overlap.of(given, target.astype(np.uint8)))
    return tally.giou
