"""Pictures as files and as data URLs."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from PIL import Image


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    stream = BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def data_url(file: bytes, subtype: str = "png") -> str:
    """A file as a data URL."""
    return f"data:image/{subtype};base64,{base64.b64encode(file).decode()}"


def gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture of any size and mode, smooth and not uniform."""
    plain = Image.linear_gradient("L").resize((width, height))
    turned = plain.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return Image.merge("RGB", (plain, turned, plain)).convert(mode)
