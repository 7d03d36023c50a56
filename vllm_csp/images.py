"""Images as LISA sees them: decoded like OpenCV, cropped for CLIP, resized for SAM.

numpy and Pillow only, so that it can be used where torch is not wanted.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from vllm_csp.image_effort import CountedReader, too_laborious

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Formats `decode_image` reads; Pillow's others are left out: each adds a parser to attack."""

MAX_PIXELS = 1 << 26

SAM_IMAGE_SIZE = 1024
"""Pixels of the long side that SAM was trained with, and LISA gives it."""

EXTREME_ASPECT = 100
PIECE = 1 << 20

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's image statistics for CLIP, of RGB in 0..1."""

Pixels = npt.NDArray[np.uint8]

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used; the message says why, in words for the person who sent it."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to RGB, as `to_rgb` describes.

    `data`: a whole file in one of `FORMATS`. `max_pixels`: bound on width * height, checked before
    any pixel is decoded.
    Returns: RGB, first frame.
    Raises: ImageError when it is not such a file, damaged, truncated, too large or empty, or of a
    kind that takes far more work than its pixels do.
    """
    with open_image(data, max_pixels) as image:
        return to_rgb(image)


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Read the header of an image file; `to_rgb` decodes its pixels.

    Raises: ImageError, for the reasons of `decode_image` that need no pixels.
    """
    if reason := too_laborious(data):
        raise ImageError(f"the image would take too long to decode: {reason}")
    try:
        image = Image.open(CountedReader(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"cannot identify image: not an image in a format read here ({', '.join(FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has too many pixels, at most {max_pixels} allowed") from error
    except Exception as error:  # Pillow's parsers raise many types on hostile headers.
        raise ImageError(f"the image has a damaged header: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"the image has too many pixels: {width} x {height}, at most {max_pixels} allowed"
        )
    # Pillow has decoders in Python: run-length BMP and PNM as text or of an odd greatest value. A
    # file of a few bytes keeps them busy for half a minute.
    if any(tile.codec_name in Image.DECODERS for tile in image.tile):
        raise ImageError(
            f"this kind of {image.format} would take too long to decode: save it as PNG"
        )
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to the RGB that LISA's reader, `cv2.imread`, gives.

    EXIF orientation is applied; alpha and palette transparency are dropped, not composited; gray is
    repeated; 16-bit gray keeps its high byte; of several frames the current one is taken.
    Known differences: OpenCV multiplies alpha into TIFF colours, fills a GIF's transparent pixels,
    leaves AVIF unturned, and is one level off at times in 16-bit colour TIFF and PNM.
    Returns: a new RGB image without metadata, so converting it again changes nothing.
    Raises: ImageError when it is damaged, truncated, empty, or of a mode without an RGB reading
    (floating point, 32-bit integers).
    """
    if min(image.size) < 1:
        raise ImageError(f"the image is empty: {image.width} x {image.height} pixels")
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise many types on damaged data.
        raise ImageError(f"the image is truncated or damaged: {error}") from error
    transposed = _upright(image)
    try:
        rgb = _drop_to_rgb(transposed, image.format)
    except ValueError as error:
        raise ImageError(f"an image of mode {image.mode} cannot be read as RGB: {error}") from error
    rgb.info = {}
    return rgb


def clip_crop(image: Image.Image, size: int = 224) -> Pixels:
    """Resize the short side to `size`, bicubic, and cut out the central square.

    `image`: RGB. Returns: uint8 [size, size, 3], not normalised.
    Beyond an aspect of `EXTREME_ASPECT` only the central square is ever computed, from the same
    source pixels and to within one level; the whole resized image would take memory in proportion
    to the aspect.
    Upstream: transformers 4.31 `CLIPImageProcessor` (`resize`, `center_crop`).
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    resized_long = int(size * long / short)
    target = (resized_long, size) if width > height else (size, resized_long)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    if long <= EXTREME_ASPECT * short:
        resized = image.resize(target, Image.Resampling.BICUBIC)
        square = resized.crop((left, top, left + size, top + size))
    else:
        square = _resize_centre(image, size, max(left, top), long / resized_long)
    return np.array(square)


def sam_input_size(
    original_size: tuple[int, int], long_side: int = SAM_IMAGE_SIZE
) -> tuple[int, int]:
    """Size of an image after SAM's resize; sizes are (height, width) in pixels.

    A side that would round to 0 becomes 1; the reference fails there.
    Upstream: segment-anything `utils/transforms.py`, `get_preprocess_shape`.
    """
    scale = long_side * 1.0 / max(original_size)
    height, width = (max(1, int(side * scale + 0.5)) for side in original_size)
    return height, width


def sam_resize(image: Image.Image, long_side: int = SAM_IMAGE_SIZE) -> Pixels:
    """Resize the long side to `long_side`, bilinear with Pillow's antialiasing.

    `image`: RGB. Returns: uint8 [h, w, 3] with (h, w) of `sam_input_size`.
    Upstream: segment-anything `utils/transforms.py`, `ResizeLongestSide.apply_image`.
    """
    height, width = sam_input_size((image.height, image.width), long_side)
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class NamedImage:
    """An image as `to_rgb` gives it, with its `image_key`: decoded and hashed once, used often."""

    image: Image.Image
    key: str

    @classmethod
    def of(cls, image: Image.Image) -> "NamedImage":
        """Hash an RGB image; a tenth of a second for 12 megapixels."""
        return cls(image, image_key(image))

    def let_go(self) -> None:
        """Free the pixels, if nobody else has them, although somebody may still have this."""
        object.__delattr__(self, "image")


def image_key(image: Image.Image) -> str:
    """Name an RGB image by its pixels.

    Returns: 32 hex digits, BLAKE2b-128 over size and RGB bytes.
    """
    digest = hashlib.blake2b(f"{image.width}x{image.height}:".encode(), digest_size=16)
    for box in _pieces(image):
        digest.update(image.crop(box).tobytes())
    return digest.hexdigest()


def _pieces(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of at most `PIECE` pixels in which rows and pixels keep their order.

    For what would take several times the memory of the image if it were done at once.
    """
    columns, rows = min(image.width, PIECE), max(1, PIECE // image.width)
    for top in range(0, image.height, rows):
        for left in range(0, image.width, columns):
            yield left, top, min(left + columns, image.width), min(top + rows, image.height)


def _resize_centre(image: Image.Image, size: int, offset: int, step: float) -> Image.Image:
    """Resize only the square at `offset` (resized pixels); `step`: source per resized pixel."""
    start, end = offset * step, (offset + size) * step
    # A bicubic pixel reaches two source or two resized pixels far, whichever is more.
    reach = 2 * max(1.0, step) + 1
    wide = image.width > image.height
    first = max(0, math.floor(start - reach))
    last = min(max(image.size), math.ceil(end + reach))
    if wide:
        band = image.crop((first, 0, last, image.height))
        box: tuple[float, float, float, float] = (start - first, 0, end - first, image.height)
    else:
        band = image.crop((0, first, image.width, last))
        box = (0, start - first, image.width, end - first)
    return band.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; unreadable EXIF counts as none, as in OpenCV."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # Pillow's EXIF parser raises many types on damaged data.
        orientation = None
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _drop_to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode.startswith("I"):
        return _by_pieces(image, _sixteen_bit_to_rgb)
    if image.mode == "F":
        raise ValueError("its samples are floating point")
    if image.mode == "CMYK" and file_format in ("JPEG", "MPO"):
        return _by_pieces(image, _jpeg_cmyk_to_rgb)
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()
        # Pillow warns when it drops a palette's transparency, which is what is wanted here.
        del image.info["transparency"]
    return image.convert("RGB")


def _by_pieces(image: Image.Image, convert: Callable[[npt.NDArray[Any]], Pixels]) -> Image.Image:
    """An RGB image of what `convert` makes of an image's samples."""
    rgb = Image.new("RGB", image.size)
    for box in _pieces(image):
        rgb.paste(Image.fromarray(convert(np.asarray(image.crop(box)))), box)
    return rgb


def _sixteen_bit_to_rgb(samples: npt.NDArray[Any]) -> Pixels:
    # Mode "I" also holds 32-bit files, which have no agreed range (and OpenCV refuses them).
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise ValueError("its samples exceed 16 bits")
    gray = (samples >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def _jpeg_cmyk_to_rgb(samples: npt.NDArray[Any]) -> Pixels:
    """OpenCV's arithmetic for CMYK JPEG, mostly one level brighter than Pillow's."""
    cmyk = samples.astype(np.uint16)
    light = 255 - cmyk[..., 3:]
    return (light - (cmyk[..., :3] * light >> 8)).astype(np.uint8)
