"""Every kind of picture that can be read: a mask of its upright size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.overlap import iou
from tests.chat import body, user
from tests.pictures import data_url, encoded, gradient
from tests.server import Server

QUESTION = "What is the helmet in this image? Please output segmentation mask."
WIDTH, HEIGHT = 80, 60
RGB = gradient(WIDTH, HEIGHT)
GRAY = RGB.convert("L")


def mask(server: Server, file: bytes, subtype: str = "png") -> dict[str, Any]:
    request = body(user(QUESTION, data_url(file, subtype)), segmentation={"mode": "force"})
    reply = server.chat(request)
    assert reply.status_code == 200, reply.text
    [found] = reply.json()["choices"][0]["message"]["masks"]
    return found


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RGB, "JPEG", exif=exif, quality=100)


def sixteen_bit() -> bytes:
    return encoded(Image.fromarray(np.asarray(GRAY).astype(np.uint16) << 8))


PALETTE = RGB.quantize(32)
KINDS: dict[str, bytes] = {
    "gray": encoded(GRAY),
    "gray with alpha": encoded(with_alpha(GRAY)),
    "RGBA": encoded(with_alpha(RGB)),
    "palette": encoded(PALETTE),
    "palette with alpha": encoded(PALETTE, transparency=bytes(range(0, 256, 8))),
    "black and white": encoded(RGB.convert("1")),
    "16 bits": sixteen_bit(),
    "CMYK": encoded(RGB.convert("CMYK"), "JPEG"),
    "JPEG": encoded(RGB, "JPEG"),
    "WebP": encoded(RGB, "WEBP"),
    "BMP": encoded(RGB, "BMP"),
    "TIFF": encoded(RGB, "TIFF"),
    "GIF": encoded(RGB, "GIF"),
    "animated GIF": encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
    "animated PNG": encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),
}


@pytest.mark.parametrize("file", KINDS.values(), ids=KINDS)
def test_the_mask_has_the_pictures_size(server: Server, file: bytes) -> None:
    assert mask(server, file)["size"] == [HEIGHT, WIDTH]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2000), (5000, 1)], ids=str)
def test_the_smallest_and_thinnest_pictures_have_masks(
    server: Server, size: tuple[int, int]
) -> None:
    width, height = size
    assert mask(server, encoded(gradient(width, height)))["size"] == [height, width]


def test_a_picture_turned_by_exif_is_seen_upright(server: Server) -> None:
    turned = mask(server, rotated_by_exif(), "jpeg")
    upright = RGB.transpose(Image.Transpose.ROTATE_270)
    assert turned["size"] == [WIDTH, HEIGHT]
    assert iou(turned, mask(server, encoded(upright, "JPEG", quality=100), "jpeg")) > 0.9


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("RGBA", encoded(RGB)),
        ("gray with alpha", encoded(GRAY)),
        ("16 bits", encoded(GRAY)),
        ("animated PNG", encoded(RGB)),
        ("BMP", encoded(RGB)),
        ("TIFF", encoded(RGB)),
    ],
)
def test_what_lisas_reader_drops_changes_nothing(server: Server, kind: str, plain: bytes) -> None:
    """Alpha (vLLM would paint it white), low bytes, later frames, the file format."""
    assert mask(server, KINDS[kind])["counts"] == mask(server, plain)["counts"]


def test_alpha_would_show_if_it_were_painted(server: Server) -> None:
    white = Image.new("RGB", RGB.size, "white")
    white.paste(RGB, mask=with_alpha(RGB).getchannel("A"))
    assert mask(server, KINDS["RGBA"])["counts"] != mask(server, encoded(white))["counts"]
