"""Pictures of answers, as commands write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def picture_path(path: Path | None) -> Path | None:
    """Of an option, before anything is asked: a picture can be written there."""
    from PIL import Image

    if path is None:
        return None
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder: make it first")
    Image.init()
    if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
        raise typer.BadParameter(f"cannot tell the format of {path}: name it .png or .jpg")
    return path


def draw_answer(image: Path, question: str, answer: dict[str, Any], output: Path) -> None:
    """Write the photo with its masks; raises `OSError` when that cannot be done."""
    from PIL import Image

    from vllm_csp.images import to_rgb
    from vllm_csp.serving.overlay import draw_overlay

    message = answer["choices"][0]["message"]
    photo = to_rgb(Image.open(image))
    draw_overlay(photo, message["masks"], question, message["content"]).save(output)


def draw_kept_tokens(image: Path, answer: dict[str, Any], output: Path) -> None:
    """Write the photo with the image tokens that each stage kept.

    Raises `RuntimeError` for an answer without a mask, `OSError` when it cannot be written.
    """
    from PIL import Image

    from vllm_csp.images import to_rgb
    from vllm_csp.serving.token_picture import draw_tokens

    if not answer["choices"][0]["message"]["masks"]:
        raise RuntimeError("no tokens to show: the answer has no [SEG] (try --mode force)")
    draw_tokens(to_rgb(Image.open(image)), answer["segmentation"]).save(output)
