"""gIoU and cIoU as LISA's `validate` computes them, in total and by kind.

Source of the formulas: github.com/dvlab-research/LISA, `train_ds.py` and `utils/utils.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vllm_csp.datasets.item import IGNORED, Raster

IOU_EPSILON = 1e-5
COUNT_EPSILON = 1e-5
CIOU_EPSILON = 1e-10


@dataclass(frozen=True)
class Overlap:
    """Pixels that a mask and its target share, and pixels that either has."""

    intersection: int
    union: int

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], target: Raster) -> Overlap:
        """Of a mask bool [H, W] and its ground truth; ignored pixels count nowhere.

        Raises: ValueError when their sizes differ.
        """
        if mask.shape != target.shape:
            raise ValueError(
                f"the mask is {mask.shape[0]} x {mask.shape[1]} pixels, the ground truth "
                f"{target.shape[0]} x {target.shape[1]}: is the annotation of another image, or of "
                "one that was turned or resized?"
            )
        given = mask & (target != IGNORED)
        wanted = target == 1
        return cls(int(np.count_nonzero(given & wanted)), int(np.count_nonzero(given | wanted)))

    @property
    def iou(self) -> float:
        """0..1; nothing wanted and nothing given is perfect."""
        return self.intersection / (self.union + IOU_EPSILON) + (self.union == 0)


@dataclass
class Tally:
    """Sums over masks; adding and merging in any order gives the same scores."""

    count: int = 0
    iou_sum: float = 0.0
    intersection: int = 0
    union: int = 0

    def add(self, overlap: Overlap) -> None:
        """Count one mask."""
        self.count += 1
        self.iou_sum += overlap.iou
        self.intersection += overlap.intersection
        self.union += overlap.union

    @property
    def giou(self) -> float:
        """Mean IoU over masks; LISA's epsilon makes a single perfect mask 0.99999."""
        return self.iou_sum / (self.count + COUNT_EPSILON)

    @property
    def ciou(self) -> float:
        """All intersections over all unions."""
        return self.intersection / (self.union + CIOU_EPSILON)


@dataclass
class Scores:
    """A tally of everything and one for each kind."""

    total: Tally = field(default_factory=Tally)
    kinds: dict[str, Tally] = field(default_factory=dict)

    def add(self, kind: str, overlaps: Iterable[Overlap]) -> None:
        """Count the masks of one question."""
        for overlap in overlaps:
            self.total.add(overlap)
            self.kinds.setdefault(kind, Tally()).add(overlap)
