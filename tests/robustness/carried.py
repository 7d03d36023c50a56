"""Pictures for Hypothesis: good files with bytes changed, cut out and repeated."""

from __future__ import annotations

import random

from hypothesis import strategies as st
from PIL import features

from tests.pictures import data_url, encoded, gradient

FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
if features.check("avif"):
    FORMATS.append("AVIF")
FILES = {name: encoded(gradient(40, 30), name) for name in FORMATS}
HEAD = 64


def damaged(kind: str, seed: int, count: int, head: bool) -> bytes:
    """A file changed at `count` places, near its beginning or anywhere."""
    chance = random.Random(seed)
    file = bytearray(FILES[kind])
    for _ in range(count):
        if not file:
            break
        place = chance.randrange(min(len(file), HEAD if head else len(file)))
        change = chance.randrange(4)
        if change == 0:
            del file[place : place + chance.randrange(9)]
        elif change == 1:
            file[place:place] = file[place : place + chance.randrange(40)]
        else:
            file[place] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(file)


def damaged_files() -> st.SearchStrategy[bytes]:
    """Of all formats that are read."""
    return st.builds(
        damaged,
        st.sampled_from(FORMATS),
        st.integers(0, 1 << 32),
        st.integers(1, 12),
        st.booleans(),
    )


def picture_urls() -> st.SearchStrategy[str]:
    """The same as data URLs."""
    return damaged_files().map(data_url)
