"""A question about an image and what is right, whichever data set it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Raster = npt.NDArray[np.uint8]
"""Ground truth [height, width] of an upright image: 0, 1 target, 255 ignored."""

IGNORED = 255

SHORT_QUESTION = "What is {} in this image? Please output segmentation mask."
LONG_QUESTION = "{} Please output segmentation mask."
"""LISA's own evaluation templates, for a phrase and for a sentence."""


@dataclass(frozen=True)
class Item:
    """One question.

    key: unique in its data set. kind: the row it counts for beside the total (class or question
    type). num_masks: expected [SEG]s. rasters: reads the ground truth, one raster for each of them.
    answer: the expected text, if the data set knows it.
    """

    key: str
    question: str
    kind: str
    num_masks: int
    rasters: Callable[[], Sequence[Raster]]
    answer: str | None = None


@dataclass(frozen=True)
class Photo:
    """An image file and its questions, read when asked for: a sample should not read the rest."""

    path: Path
    items: Callable[[], list[Item]]


class DatasetError(ValueError):
    """A data set that cannot be read; the message says what is wrong and what to do."""
