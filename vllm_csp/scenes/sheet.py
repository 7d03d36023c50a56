"""A contact sheet: scenes with their questions, to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vllm_csp.scenes.sample import SceneQuestion, SceneSample

CELL = 224
GAP = 8
CAPTION = 106


def draw_sheet(samples: Sequence[SceneSample], questions: int = 8) -> Image.Image:
    """One row per scene: the picture, then a cell per question with all but its masks darkened."""
    width = (CELL + GAP) * (1 + questions) + GAP
    height = (CELL + CAPTION + GAP) * len(samples) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    for row, sample in enumerate(samples):
        y = GAP + row * (CELL + CAPTION + GAP)
        sheet.paste(sample.image.resize((CELL, CELL), Image.Resampling.LANCZOS), (GAP, y))
        for column, question in enumerate(sample.questions[:questions], start=1):
            sheet.paste(_cell(sample.image, question), (GAP + column * (CELL + GAP), y))
    return sheet


def _cell(image: Image.Image, question: SceneQuestion) -> Image.Image:
    asked = np.zeros((image.height, image.width), dtype=np.bool_)
    for mask in question.masks:
        asked |= mask
    dark = Image.blend(image, Image.new("RGB", image.size, "black"), 0.75)
    seen = Image.composite(image, dark, Image.fromarray(asked))
    pen = ImageDraw.Draw(seen)
    for number, mask in enumerate(question.masks, start=1):
        if len(question.masks) > 1:
            y, x = (int(places.mean()) for places in mask.nonzero())
            font = ImageFont.load_default(size=image.width // 9)
            pen.text((x, y), str(number), "white", font, "mm", stroke_width=3, stroke_fill="black")
    cell = Image.new("RGB", (CELL, CELL + CAPTION), "white")
    cell.paste(seen.resize((CELL, CELL), Image.Resampling.LANCZOS))
    _write(cell, [question.kind, question.text, question.answer])
    return cell


def _write(cell: Image.Image, texts: Sequence[str]) -> None:
    font = ImageFont.load_default(size=13)
    lines = [
        (line, colour)
        for text, colour in zip(texts, ("gray", "black", "steelblue"), strict=True)
        for line in textwrap.wrap(text, 33)
    ]
    pen = ImageDraw.Draw(cell)
    for row, (line, colour) in enumerate(lines):
        pen.text((0, CELL + 3 + 16 * row), line, colour, font)
