"""Images of all kinds as files and addresses, to send to a server."""

from __future__ import annotations

import base64
import io
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

ImageLike: TypeAlias = str | PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, an address (`http://`, `https://`, `data:`), a file's bytes, a Pillow image, or RGB
pixels: uint8, [height, width], [height, width, 3] or [height, width, 4]."""

_ADDRESSES = ("http://", "https://", "data:")
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def image_address(image: ImageLike) -> str | None:
    """The address, if it is one: the server then fetches the image itself."""
    return image if isinstance(image, str) and image.startswith(_ADDRESSES) else None


def image_file(image: ImageLike) -> bytes:
    """The bytes of an image file.

    Pillow images and arrays become PNGs of just their pixels: an EXIF orientation that was not
    applied to them is not applied by the server either, so masks fit the pixels at hand.
    Raises `TypeError` or `ValueError` for what is no image, `OSError` for an unreadable path.
    """
    if isinstance(image, bytes):
        return image
    if image_address(image) is not None:
        raise ValueError("an address has no pixels here: give the image itself")
    if isinstance(image, (str, PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise TypeError(
            "an image is a path, an address, bytes, a Pillow image or an array, not "
            f"{type(image).__name__}"
        )
    buffer = io.BytesIO()
    plain = image if image.mode in _PNG_MODES else image.convert("RGB")
    plain.save(buffer, "PNG", exif=b"")
    return buffer.getvalue()


def image_data_url(image: ImageLike) -> str:
    """An image as an address for a JSON body; the server looks at the bytes, not at the type."""
    address = image_address(image)
    if address is not None:
        return address
    return "data:image/*;base64," + base64.b64encode(image_file(image)).decode("ascii")


def _from_array(array: npt.NDArray[np.uint8]) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not fits:
        raise ValueError(
            "pixels must be uint8 in the shape [height, width], [height, width, 3] (RGB) or "
            f"[height, width, 4] (RGBA), not {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array)
