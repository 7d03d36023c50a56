"""Reads an answer as FiftyOne does; run by `test_formats.py` in an environment with FiftyOne."""

from __future__ import annotations

import sys
from pathlib import Path

import fiftyone
import numpy as np

from vllm_csp.client import SegmentResponse


def main(folder: Path) -> None:
    """Compare the detections of `answer.json` with `masks.npy`, of which the last is empty."""
    answer = SegmentResponse.model_validate_json((folder / "answer.json").read_text())
    masks = np.load(folder / "masks.npy")
    _, height, width = masks.shape
    detections = answer.to_fiftyone().detections
    assert len(detections) == len(masks) - 1
    for number, (detection, mask) in enumerate(zip(detections, masks, strict=False)):
        # What FiftyOne stores and loads again, then paints onto the frame.
        stored = fiftyone.Detection.from_dict(detection.to_dict())
        assert stored.label == f"thing {min(number, 3)}"
        assert abs(stored.confidence - (0.5 + number / 20)) < 1e-6
        painted = stored.to_segmentation(frame_size=(width, height)).mask
        assert np.array_equal(painted.astype(bool), mask), number
    print(f"{len(detections)} detections agree")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
