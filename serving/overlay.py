"""A picture of an answer: the photo, its masks in colour, question and answer beneath."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vllm_csp.masks import decode_mask

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
]
MIN_WIDTH = 480


def draw_overlay(
    image: Image.Image, masks: Sequence[dict[str, Any]], question: str = "", answer: str = ""
) -> Image.Image:
    """Tint each mask of `image` (RGB, upright) and outline it; texts go into a strip below.

    `masks` are JSON masks as in `segment.response.Mask`. Small images are enlarged to fit the text.
    """
    scale = max(1, -(-MIN_WIDTH // image.width))
    canvas = image.resize((image.width * scale, image.height * scale))
    for number, mask in enumerate(masks):
        area = Image.fromarray(decode_mask(mask).astype(np.uint8) * 255).resize(canvas.size)
        colour = COLOURS[number % len(COLOURS)]
        tint = Image.new("RGB", canvas.size, colour)
        canvas = Image.composite(Image.blend(canvas, tint, 0.5), canvas, area)
        outline = area.filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(3))
        canvas.paste(colour, mask=outline)
    return _with_caption(canvas, question, answer) if question or answer else canvas


def _with_caption(picture: Image.Image, question: str, answer: str) -> Image.Image:
    font = ImageFont.load_default(size=18)
    columns = max(20, picture.width // 10)
    lines = [*textwrap.wrap(question, columns), *textwrap.wrap(answer, columns)]
    num_question = len(textwrap.wrap(question, columns))
    strip = 26 * len(lines) + 16
    canvas = Image.new("RGB", (picture.width, picture.height + strip), "white")
    canvas.paste(picture)
    pen = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        fill = "dimgray" if row < num_question else "black"
        pen.text((10, picture.height + 8 + 26 * row), line, font=font, fill=fill)
    return canvas
