"""Outlines of the shapes as polygons around their centre of gravity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vllm_csp.scenes.scene import SceneObject

Points = npt.NDArray[np.float64]
STEPS = 72


@dataclass(frozen=True)
class Outline:
    """Polygon and hole of a shape of radius 1: float64 [points, 2], x to the right, y down.

    Shapes of equal radius look equally large: 1 is the geometric mean of half the longer side of
    the bounding box and of the radius of a disc of the same area.
    """

    polygon: Points
    hole: Points | None
    reach: float  # of the outermost point


def _arc(start: float, stop: float, radius: float = 1.0, x: float = 0.0) -> Points:
    angles = np.radians(np.linspace(start, stop, STEPS))
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _regular(points: int) -> Points:
    angles = np.radians(-90 + np.arange(points) * 360 / points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Points:
    radii = np.tile([1.0, 0.45], 5)
    return _regular(10) * radii[:, None]


def _cross() -> Points:
    a, b = 1.0, 0.36
    quarter = np.array([[b, -a], [b, -b], [a, -b]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, STEPS)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _moon() -> Points:
    # A disc of radius 1 without a disc of radius 0.8 around (0.55, 0).
    x, radius = 0.55, 0.8
    cut = (x * x + 1 - radius * radius) / (2 * x)
    outer = np.degrees(np.arccos(cut))
    inner = np.degrees(np.arctan2(np.sqrt(1 - cut * cut), cut - x))
    return np.concatenate([_arc(outer, 360 - outer), _arc(360 - inner, inner, radius, x)])


def _area_and_centre(polygon: Points) -> tuple[float, Points]:
    after = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * after[:, 1] - after[:, 0] * polygon[:, 1]
    area = cross.sum() / 2
    return abs(area), ((polygon + after) * cross[:, None]).sum(axis=0) / (6 * area)


def _outline(polygon: Points, hole: float = 0.0) -> Outline:
    area, centre = _area_and_centre(polygon)
    polygon = polygon - centre
    half_side = float(np.ptp(polygon, axis=0).max()) / 2
    polygon = polygon / np.sqrt(half_side * np.sqrt(area / np.pi))
    reach = float(np.hypot(*polygon.T).max())
    return Outline(polygon, polygon * hole if hole else None, reach)


OUTLINES = {
    "circle": _outline(_arc(0, 360)),
    "square": _outline(np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])),
    "triangle": _outline(_regular(3)),
    "star": _outline(_star()),
    "ring": _outline(_arc(0, 360), hole=0.52),
    "cross": _outline(_cross()),
    "heart": _outline(_heart()),
    "moon": _outline(_moon()),
}


def place(points: Points, thing: SceneObject) -> Points:
    """An outline's points where the object is: float64 [points, 2], fractions of the side."""
    turn = np.radians(thing.turn)
    cos, sin = np.cos(turn), np.sin(turn)
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    return turned * thing.radius + (thing.x, thing.y)


def box(thing: SceneObject) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an object, as if nothing covered it."""
    points = place(OUTLINES[thing.shape].polygon, thing)
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
