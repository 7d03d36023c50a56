"""Paints a scene and knows which pixels show which object."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, floor, radians, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vllm_csp.scenes.backgrounds import shade
from vllm_csp.scenes.outlines import OUTLINES, Points, place
from vllm_csp.scenes.scene import Scene, SceneObject

Mask = npt.NDArray[np.bool_]
OVERSAMPLING = 4
STRIPE = 0.42  # width of two stripes, in radii


@dataclass(frozen=True)
class Cover:
    """How much of each pixel an object covers, 0-255, in the box that starts at left, top."""

    left: int
    top: int
    share: Image.Image  # mode L


def paint(scene: Scene, canvas: Image.Image) -> tuple[Mask, ...]:
    """Paint the objects onto the square `canvas` (RGB), in place.

    Returns each object's visible pixels, bool [side, side], read-only: those it covers at least
    half of and no later object does.
    """
    masks: list[Mask] = []
    for thing in scene.objects:
        cover = draw_cover(thing, canvas.width)
        canvas.paste(_fill(thing, cover, canvas.width), (cover.left, cover.top), cover.share)
        solid = np.asarray(cover.share) >= 128
        height, width = solid.shape
        region = np.s_[cover.top : cover.top + height, cover.left : cover.left + width]
        for below in masks:
            below[region] &= ~solid
        mask = np.zeros((canvas.height, canvas.width), dtype=np.bool_)
        mask[region] = solid
        masks.append(mask)
    for mask in masks:
        mask.flags.writeable = False
    return tuple(masks)


def draw_cover(thing: SceneObject, side: int) -> Cover:
    """The object alone, antialiased by drawing it four times as large."""
    outline = OUTLINES[thing.shape]
    polygon = place(outline.polygon, thing) * side
    left, top = (floor(value) for value in polygon.min(axis=0))
    right, bottom = (min(side, ceil(value) + 1) for value in polygon.max(axis=0))
    large = Image.new("L", ((right - left) * OVERSAMPLING, (bottom - top) * OVERSAMPLING))
    pen = ImageDraw.Draw(large)
    pen.polygon(_enlarged(polygon, left, top), fill=255)
    if outline.hole is not None:
        pen.polygon(_enlarged(place(outline.hole, thing) * side, left, top), fill=0)
    return Cover(left, top, large.reduce(OVERSAMPLING))


def _enlarged(points: Points, left: int, top: int) -> list[float]:
    # Pillow's coordinates are pixel centres, ours are corners: hence the half.
    return ((points - (left, top)) * OVERSAMPLING - 0.5).ravel().tolist()


def _fill(thing: SceneObject, cover: Cover, side: int) -> Image.Image:
    if not thing.striped:
        return Image.new("RGB", cover.share.size, thing.rgb)
    width, height = cover.share.size
    direction = radians(thing.turn + 45)
    period = STRIPE * thing.radius * side
    x = np.arange(width, dtype=np.float32) * (cos(direction) / period)
    y = np.arange(height, dtype=np.float32)[:, None] * (sin(direction) / period)
    dark = (x + y) % 1.0 < 0.5
    return Image.fromarray(np.array([thing.rgb, shade(thing.rgb)], dtype=np.uint8)[dark * 1])
