"""`fiftyone.Detections`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vllm_csp.serving.segment.formats.labelled import LabelledMask

if TYPE_CHECKING:
    import fiftyone


def to_fiftyone(
    masks: list[LabelledMask], labels: Mapping[str, str] | None = None
) -> fiftyone.Detections:
    """One detection per mask that is not empty: `bounding_box` relative, `mask` cut to it.

    labels: question to label; default: the question itself. Needs `pip install fiftyone`, best
    in an environment without vLLM: the two want other versions of the same packages.
    """
    import fiftyone

    detections = []
    for label, mask in masks:
        if not mask.area:
            continue
        height, width = mask.size
        x, y, w, h = mask.bbox
        detections.append(
            fiftyone.Detection(
                label=label if labels is None else labels[label],
                bounding_box=[x / width, y / height, w / width, h / height],
                mask=mask.to_numpy()[y : y + h, x : x + w],
                confidence=mask.score,
            )
        )
    return fiftyone.Detections(detections=detections)
