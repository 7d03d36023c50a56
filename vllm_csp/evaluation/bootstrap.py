"""Intervals of gIoU by a paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Between which values the estimate lies in `LEVEL` of the resamples."""

    low: float
    high: float


class Bootstrap:
    """Resamples of a data set's images, the same for all policies.

    Whole images are drawn, with all their masks: masks of one image are not independent, and
    drawing them one by one would make the intervals too narrow. Because every policy meets the same
    draws, the interval of a difference is the paired one. Seeded: the same images give the same
    draws.
    """

    def __init__(self, images: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> None:
        """`images`: of every mask, the image it belongs to."""
        names, self._owner = np.unique(np.asarray(images, dtype=str), return_inverse=True)
        self._num_images = len(names)
        draws = np.random.default_rng(seed)
        share = np.full(self._num_images, 1 / max(1, self._num_images))
        # How often each resample drew each image.
        self._weights = draws.multinomial(self._num_images, share, size=resamples)

    def giou(self, ious: Sequence[float]) -> Interval:
        """Interval of the mean of `ious`, one per mask, in the order of `images`."""
        return _interval(self._means(ious))

    def difference(self, ious: Sequence[float], baseline: Sequence[float]) -> Interval:
        """Interval of the mean of `ious` minus that of `baseline`, over the same masks."""
        return _interval(self._means(ious) - self._means(baseline))

    def _means(self, ious: Sequence[float]) -> Floats:
        if len(ious) != len(self._owner):
            raise ValueError(f"{len(ious)} IoUs for {len(self._owner)} masks")
        sums = np.bincount(self._owner, weights=ious, minlength=self._num_images)
        counts = np.bincount(self._owner, minlength=self._num_images)
        means: Floats = (self._weights @ sums) / (self._weights @ counts)
        return means


def _interval(values: Floats) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
