"""A picture of the image tokens that each stage kept, over the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

PANEL = 336
TITLE = 30


def draw_tokens(image: Image.Image, segmentation: dict[str, Any]) -> Image.Image:
    """One panel per stage: what the vision tower saw, left-out tokens darkened.

    `segmentation` is that object of a response asked for with `show_tokens`. The tower sees the
    centre square of the photo, so the panels show that.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    seen = image.crop((left, top, left + side, top + side)).resize((PANEL, PANEL))
    stages = list(zip(segmentation["stage_layers"], segmentation["kept_tokens"], strict=True))
    total = segmentation["visual_tokens"]
    canvas = Image.new("RGB", (len(stages) * (PANEL + 8) - 8, PANEL + TITLE), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    for number, ((first, last), kept) in enumerate(stages):
        x = number * (PANEL + 8)
        canvas.paste(_darkened(seen, kept, total), (x, TITLE))
        title = f"layers {first}-{last - 1}: {len(kept)} of {total} tokens"
        pen.text((x + 4, 6), title, font=font, fill="black")
    return canvas


def _darkened(picture: Image.Image, kept: Sequence[int], total: int) -> Image.Image:
    columns = round(total**0.5)
    cells = Image.new("L", (columns, total // columns), 255)
    for token in kept:
        cells.putpixel((token % columns, token // columns), 0)
    dark = Image.blend(picture, Image.new("RGB", picture.size, "black"), 0.8)
    mask = cells.resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(dark, picture, mask)
