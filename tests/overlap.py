"""How well masks agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vllm_csp.masks import decode_mask


def iou(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Intersection over union of two masks, as served or as the oracle's COCO RLEs.

    Two empty masks agree.
    """
    one, other = decode_mask(dict(ours)), decode_mask(dict(reference))
    assert one.shape == other.shape
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0
