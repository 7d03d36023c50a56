"""How well masks agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco

from vllm_csp.masks import decode_mask


def iou(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Intersection over union of a mask as served and a COCO RLE; two empty masks agree."""
    counts = reference["counts"]
    stored = {
        "size": reference["size"],
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }
    assert list(ours["size"]) == list(reference["size"])
    ours_pixels, pixels = decode_mask(dict(ours)), coco.decode(stored).astype(bool)
    union = np.logical_or(ours_pixels, pixels).sum()
    return float(np.logical_and(ours_pixels, pixels).sum() / union) if union else 1.0
