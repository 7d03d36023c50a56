"""What the benchmarks ask: photos that no cache knows, and short questions about them."""

from __future__ import annotations

import numpy as np
from PIL import Image

THINGS = ("cup", "largest object", "face", "wall", "person on the left", "table", "cat", "window")
WIDTH, HEIGHT = 640, 480


def photo(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture of its own for each number, with coarse and fine structure."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = random.integers(-12, 13, (height, width, 1))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def question(number: int) -> str:
    """A question in LISA's words."""
    thing = THINGS[number % len(THINGS)]
    return f"What is the {thing} in this image? Please output segmentation mask."
