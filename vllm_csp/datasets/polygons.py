"""Polygons drawn into a raster as LISA draws ReasonSeg's, pixel by pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vllm_csp.datasets.item import Raster

# Edges are followed in 16.16 fixed point, which decides where a span ends between two pixels.
FRACTION_BITS = 16
HALF = 1 << (FRACTION_BITS - 1)


def draw_polygon(raster: Raster, points: npt.NDArray[np.int32], value: int) -> None:
    """Set outline and inside of a closed polygon, even-odd, in place.

    points: (x, y) in pixels [P, 2]; those outside are clipped. The same pixels as `polylines` and
    `fillPoly` of OpenCV 4.8, with which the published scores were made. OpenCV 5.0 leaves out
    pixels of the inside that an edge cuts in half, so the inside is filled here.
    """
    import cv2

    cv2.polylines(raster, [points], isClosed=True, color=value, thickness=1)
    tops, bottoms = _edges(points)
    if not len(tops):
        return
    slopes = _truncated((bottoms[:, 0] - tops[:, 0]) << FRACTION_BITS, bottoms[:, 1] - tops[:, 1])
    first, last = max(0, int(tops[:, 1].min())), min(raster.shape[0], int(bottoms[:, 1].max()))
    for row in range(first, last):
        crossed = (tops[:, 1] <= row) & (row < bottoms[:, 1])
        steps = row - tops[crossed, 1]
        crossings = np.sort((tops[crossed, 0] << FRACTION_BITS) + slopes[crossed] * steps)
        columns = (crossings + HALF) >> FRACTION_BITS
        for left, right in zip(columns[::2], columns[1::2], strict=True):
            raster[row, max(left, 0) : max(right + 1, 0)] = value


def _edges(points: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Upper and lower ends of the edges that are not horizontal."""
    ends = points.astype(np.int64), np.roll(points, -1, axis=0).astype(np.int64)
    falling = (ends[0][:, 1] < ends[1][:, 1])[:, None]
    tops, bottoms = np.where(falling, *ends), np.where(falling, *ends[::-1])
    sloped = tops[:, 1] < bottoms[:, 1]
    return tops[sloped], bottoms[sloped]


def _truncated(
    numerators: npt.NDArray[np.int64], denominators: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Quotients cut towards zero, as C divides."""
    quotients: npt.NDArray[np.int64] = np.sign(numerators) * (np.abs(numerators) // denominators)
    return quotients
