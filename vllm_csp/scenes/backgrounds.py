"""Backgrounds: plain, a gradient, noise or a photo; objects stand out from the first three."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from vllm_csp.scenes.scene import SceneObject

Colour = tuple[int, int, int]
DRAWN = ("plain", "gradient", "noise")
PHOTO = "photo"
SHADE = 0.5  # of the colour: the darker stripes of striped objects
CONTRAST = 64  # least distance in RGB between a background and any colour on it
KEPT_PHOTO_SIDE = 512


def shade(colour: Colour) -> Colour:
    """The darker colour of the stripes."""
    red, green, blue = (int(c * SHADE) for c in colour)
    return red, green, blue


def draw_background(
    random: Random,
    kind: str,
    size: int,
    objects: Iterable[SceneObject],
    photos: Sequence[Path] = (),
) -> Image.Image:
    """A square RGB picture to paint the objects on."""
    if kind == PHOTO:
        return _photo(random, random.choice(photos), size)
    taken = [colour for thing in objects for colour in (thing.rgb, shade(thing.rgb))]
    first = _free_colour(random, taken)
    if kind == "plain":
        return Image.new("RGB", (size, size), first)
    if kind == "gradient":
        return _gradient(random, first, _free_colour(random, taken, near=first), size)
    return _noise(random, first, size)


def _free_colour(random: Random, taken: Sequence[Colour], near: Colour | None = None) -> Colour:
    """A pale or greyish colour far from all taken ones; the farthest of 40 if none is far."""
    best, best_distance = (128, 128, 128), -1.0
    for _ in range(40):
        level = random.randint(12, 235)
        red, green, blue = (min(255, max(0, level + random.randint(-28, 28))) for _ in range(3))
        if near is not None and _distance((red, green, blue), near) > 120:
            continue
        distance = min(_distance((red, green, blue), colour) for colour in taken)
        if distance > best_distance:
            best, best_distance = (red, green, blue), distance
        if distance >= CONTRAST:
            break
    return best


def _distance(one: Colour, other: Colour) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


def _gradient(random: Random, first: Colour, second: Colour, size: int) -> Image.Image:
    ramp = Image.linear_gradient("L").rotate(random.choice([0, 90, 180, 270]))
    ramp = ramp.resize((size, size), Image.Resampling.BILINEAR)
    one, other = (Image.new("RGB", ramp.size, colour) for colour in (first, second))
    return Image.composite(one, other, ramp)


def _noise(random: Random, colour: Colour, size: int) -> Image.Image:
    generator = np.random.default_rng(random.getrandbits(63))
    cells = random.choice([8, 16, 32, 64])
    blots = generator.integers(-24, 25, (cells, cells, 3)) + np.array(colour)
    coarse = Image.fromarray(blots.clip(0, 255).astype(np.uint8))
    picture = np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR))
    grain = generator.integers(0, 17, (size, size, 1), dtype=np.uint8)
    # Both below 256 by making room for the grain first.
    return Image.fromarray(np.minimum(picture, 239) + grain)


def _photo(random: Random, path: Path, size: int) -> Image.Image:
    """A random square of the photo, paled so that the objects stay visible."""
    photo = _open_photo(path)
    side = random.uniform(0.6, 1.0) * min(photo.size)
    left = random.uniform(0, photo.width - side)
    top = random.uniform(0, photo.height - side)
    square = photo.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    return Image.blend(square, Image.new("RGB", square.size, (128, 128, 128)), 0.3)


@lru_cache(maxsize=128)
def _open_photo(path: Path) -> Image.Image:
    """The photo in RGB, made small: reading it from disk would take most of a sample's time."""
    with Image.open(path) as file:
        file.draft("RGB", (KEPT_PHOTO_SIDE, KEPT_PHOTO_SIDE))
        photo = file.convert("RGB")
    scale = KEPT_PHOTO_SIDE / min(photo.size)
    if scale >= 1:
        return photo
    return photo.resize((round(photo.width * scale), round(photo.height * scale)))
