"""Prompts of random words around pictures, the same in every run."""

from __future__ import annotations

import torch
from PIL import Image

from tests.staged.plans import Prompt
from tests.staged.selection import TOKENS

IMAGE_TOKEN = 32004


def picture(seed: int, width: int = 224, height: int = 224) -> Image.Image:
    """A picture of coloured patches, different for every seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (12, 12, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(coarse.numpy()).resize((width, height), Image.Resampling.NEAREST)


def image_prompt(
    number: int, before: int, after: int, shown: int = 0, seed: int | None = None
) -> Prompt:
    """`before` words, picture number `shown`, `after` words; `number` picks the words."""
    words = _words(number, before + after)
    ids = [*words[:before], *[IMAGE_TOKEN] * TOKENS, *words[before:]]
    return Prompt(tuple(ids), before, picture(shown), seed)


def text_prompt(number: int, length: int) -> Prompt:
    """Words only."""
    return Prompt(tuple(_words(number, length)))


def mixed_prompts() -> list[Prompt]:
    """Two pictures, short and long texts around them, one with its own seed; two without any."""
    return [
        image_prompt(1, before=35, after=11),
        text_prompt(2, length=45),
        image_prompt(3, before=1, after=30, shown=1),
        image_prompt(4, before=12, after=1, seed=7_000_000_019),
        text_prompt(5, length=3),
        image_prompt(6, before=20, after=40),
    ]


def _words(number: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(1000 + number)
    return torch.randint(3, 31000, (length,), generator=generator).tolist()
