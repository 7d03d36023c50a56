"""An answer of the shape that the server gives, with masks made for the purpose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vllm_csp.masks import encode_mask
from vllm_csp.serving.segment.response import (
    ImageSize,
    Mask,
    SegmentError,
    SegmentResponse,
    SegmentResult,
    SegmentUsage,
)

HEIGHT, WIDTH = 37, 53
Pixels = npt.NDArray[np.bool_]


def made_masks() -> list[Pixels]:
    """A blob with a hole, single pixels in corners, noise, everything, nothing."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 20, columns - 30)
    corners = np.zeros((HEIGHT, WIDTH), bool)
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    noise = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    return [
        (distance < 12) & (distance > 5),
        corners,
        noise,
        np.ones((HEIGHT, WIDTH), bool),
        np.zeros((HEIGHT, WIDTH), bool),
    ]


def answer_with(masks: list[Pixels], mask_format: str = "rle") -> SegmentResponse:
    """One question per mask, but the last two masks share one; a failed question at the end."""
    height, width = masks[0].shape if masks else (HEIGHT, WIDTH)
    rows: dict[str, list[Mask]] = {}
    for number, pixels in enumerate(masks):
        question = f"thing {min(number, max(0, len(masks) - 2))}"
        found = rows.setdefault(question, [])
        encoded = encode_mask(
            pixels, 0.5 + number / 20, len(found), "png" if mask_format == "png" else "rle"
        )
        found.append(Mask(**encoded))
    results = [
        SegmentResult(question=question, answer="[SEG].", masks=found)
        for question, found in rows.items()
    ]
    error = SegmentError(message="too long", type="BadRequestError", code=400)
    return SegmentResponse(
        id="seg-1",
        created=0,
        model="lisa",
        image=ImageSize(width=width, height=height),
        results=[*results, SegmentResult(question="failed", error=error)],
        usage=SegmentUsage(),
    )
