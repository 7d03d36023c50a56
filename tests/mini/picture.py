"""Makes the picture of LISA-mini's answers in the README.

vllm-csp serve --enforce-eager
python -m tests.mini.picture http://localhost:8000 docs/pictures/mini.jpg
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

from vllm_csp.client import Client
from vllm_csp.scenes import make_sample

HEIGHT, GAP = 330, 8
ASKED = (
    (
        make_sample(19, "test").image,
        "Can you segment the biggest of the red objects in this image?",
    ),
    (
        make_sample(31, "test").image,
        "Can you segment the triangle that is to the right of the pink triangle in this image?",
    ),
    (Image.fromarray(data.chelsea()), "Can you segment the cat in this image?"),
    (Image.fromarray(data.astronaut()), "Segment the hair."),
)


def main(url: str, output: str) -> None:
    """Ask, and put the answers side by side."""
    tiles = []
    with tempfile.TemporaryDirectory() as folder, Client(url) as client:
        for number, (image, question) in enumerate(ASKED):
            file = Path(folder) / f"{number}.png"
            image.save(file)
            answer = client.segment(file, [question], mode="generate").overlay(file)
            tiles.append(answer.resize((answer.width * HEIGHT // answer.height, HEIGHT)))
    whole = Image.new("RGB", (sum(tile.width + GAP for tile in tiles) - GAP, HEIGHT), "white")
    left = 0
    for tile in tiles:
        whole.paste(tile, (left, 0))
        left += tile.width + GAP
    whole.save(output, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
