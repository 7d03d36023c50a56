"""`supervision.Detections`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vllm_csp.serving.segment.formats.labelled import LabelledMask, label_numbers

if TYPE_CHECKING:
    import supervision


def to_supervision(
    masks: list[LabelledMask], class_ids: Mapping[str, int] | None = None
) -> supervision.Detections:
    """One detection per mask: `mask` bool [n, height, width], `xyxy` in pixels, `confidence` its
    score.

    class_ids: question to `class_id`; default: in order of appearance, from 0. The question is
    `data["class_name"]`. Needs `pip install supervision`.
    """
    import supervision

    if not masks:
        return supervision.Detections.empty()
    classes = class_ids or label_numbers(masks, first=0)
    boxes = np.array([mask.bbox for _, mask in masks], dtype=np.float32)
    data: dict[str, Any] = {
        "class_name": np.array([label for label, _ in masks]),
        "seg_index": np.array([mask.seg_index for _, mask in masks]),
    }
    return supervision.Detections(
        xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        mask=np.stack([mask.to_numpy() for _, mask in masks]),
        confidence=np.array([mask.score for _, mask in masks], dtype=np.float32),
        class_id=np.array([classes[label] for label, _ in masks]),
        data=data,
    )
