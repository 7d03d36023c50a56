"""Decoding against OpenCV, crops and resizes against the recorded inputs of LISA."""

import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.oracle import Precision, Recording, each_recording
from vllm_csp.images import (
    FORMATS,
    ImageError,
    clip_crop,
    decode_image,
    image_key,
    sam_input_size,
    sam_resize,
    to_rgb,
)

cv2 = pytest.importorskip("cv2", reason="OpenCV, LISA's image reader, is not installed")

WIDTH, HEIGHT = 61, 47


def noise(*shape: int, limit: int = 256, dtype: type = np.uint8) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, limit, shape).astype(dtype)


def photo() -> Image.Image:
    return Image.fromarray(noise(9, 12, 3)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(noise(HEIGHT, WIDTH)))
    return image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def oriented(file_format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(), file_format, exif=exif)


def opencv(data: bytes) -> npt.NDArray[np.uint8]:
    """What LISA's reader gives: IMREAD_COLOR, then BGR to RGB."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def files() -> dict[str, bytes]:
    rgb, palette = photo(), photo().quantize(64)
    gray, bilevel, cmyk = rgb.convert("L"), rgb.convert("1"), rgb.convert("CMYK")
    deep = Image.fromarray(noise(HEIGHT, WIDTH, limit=1 << 16, dtype=np.uint16))
    deep_rgba = noise(HEIGHT, WIDTH, 4, limit=1 << 16, dtype=np.uint16)
    big_endian = Image.frombytes("I;16B", deep.size, np.asarray(deep).astype(">u2").tobytes())
    spun = rgb.rotate(180)
    return {
        "png rgb": encoded(rgb, "PNG"),
        "png rgb with a transparent colour": encoded(rgb, "PNG", transparency=(1, 2, 3)),
        "png rgba": encoded(with_alpha(photo()), "PNG"),
        "png gray": encoded(gray, "PNG"),
        "png gray with a transparent level": encoded(gray, "PNG", transparency=3),
        "png gray and alpha": encoded(with_alpha(photo().convert("L")), "PNG"),
        "png 1-bit": encoded(bilevel, "PNG"),
        "png palette": encoded(palette, "PNG"),
        "png palette with a transparent entry": encoded(palette, "PNG", transparency=5),
        "png palette with alpha": encoded(palette, "PNG", transparency=bytes(range(64))),
        "png 16-bit gray": encoded(deep, "PNG"),
        "png 16-bit rgb": cv2.imencode(".png", deep_rgba[..., :3])[1].tobytes(),
        "png 16-bit rgba": cv2.imencode(".png", deep_rgba)[1].tobytes(),
        "png animated": encoded(rgb, "PNG", save_all=True, append_images=[spun]),
        "jpeg 4:4:4": encoded(rgb, "JPEG", quality=90, subsampling=0),
        "jpeg 4:2:2": encoded(rgb, "JPEG", quality=75, subsampling=1),
        "jpeg 4:2:0": encoded(rgb, "JPEG", quality=60, subsampling=2),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg gray": encoded(gray, "JPEG"),
        "jpeg cmyk": encoded(cmyk, "JPEG", quality=95),
        "webp": encoded(rgb, "WEBP"),
        "webp rgba": encoded(with_alpha(photo()), "WEBP"),
        "webp lossless rgba": encoded(with_alpha(photo()), "WEBP", lossless=True, exact=True),
        "webp animated": encoded(rgb, "WEBP", save_all=True, append_images=[spun]),
        "gif": encoded(palette, "GIF"),
        "gif animated": encoded(palette, "GIF", save_all=True, append_images=[spun.quantize(64)]),
        "bmp": encoded(rgb, "BMP"),
        "bmp rgba": encoded(with_alpha(photo()), "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "bmp 1-bit": encoded(bilevel, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff palette": encoded(palette, "TIFF"),
        "tiff cmyk": encoded(cmyk, "TIFF"),
        "tiff 16-bit gray": encoded(deep, "TIFF"),
        "tiff 16-bit gray, big endian": encoded(big_endian, "TIFF"),
        "ppm": encoded(rgb, "PPM"),
        "pgm 16-bit": encoded(deep, "PPM"),
        "avif": encoded(rgb, "AVIF"),
        "avif rgba": encoded(with_alpha(photo()), "AVIF"),
        **{
            f"{file_format} orientation {orientation}": oriented(file_format, orientation)
            for file_format in ("JPEG", "PNG", "WEBP", "TIFF")
            for orientation in range(1, 9)
        },
    }


FILES = files()


@pytest.mark.parametrize("name", FILES)
def test_decodes_as_opencv_does(name: str) -> None:
    decoded = decode_image(FILES[name])
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), opencv(FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_converting_again_changes_nothing(name: str) -> None:
    decoded = decode_image(FILES[name])
    assert to_rgb(decoded).tobytes() == decoded.tobytes()


@pytest.mark.parametrize("name", [name for name in FILES if "orientation" not in name])
def test_half_a_file_is_refused(name: str) -> None:
    # The first frame of an animation may be whole in half the file.
    data = FILES[name]
    with pytest.raises(ImageError):
        decode_image(data[: len(data) // (8 if "animated" in name else 2)])


def test_alpha_is_dropped_not_composited() -> None:
    image = Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    assert to_rgb(image).getpixel((0, 0)) == (200, 100, 50)


def test_the_caller_keeps_its_image() -> None:
    image = Image.open(BytesIO(FILES["png palette with a transparent entry"]))
    to_rgb(image)
    assert image.mode == "P"
    assert image.info["transparency"] == 5


def test_signed_or_wide_integers_and_floats_are_refused() -> None:
    for samples in (np.float32([[0.5]]), np.int32([[1 << 16]]), np.int32([[-1]])):
        with pytest.raises(ImageError, match="cannot be read as RGB"):
            to_rgb(Image.fromarray(samples))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF"])
def test_what_is_no_image_is_refused_with_the_formats(data: bytes) -> None:
    with pytest.raises(ImageError, match=f"not an image.*{', '.join(FORMATS)}"):
        decode_image(data)


def test_formats_beyond_the_list_are_refused() -> None:
    with pytest.raises(ImageError, match="not an image"):
        decode_image(encoded(photo(), "ICO"))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 30_000, 4_000, 8, 2, 0, 0, 0)
    # No pixel data at all: any attempt to decode would complain about that instead.
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="too many pixels: 30000 x 4000, at most 67108864"):
        decode_image(bomb)
    with pytest.raises(ImageError, match="too many pixels: 61 x 47, at most 2866"):
        decode_image(FILES["png rgb"], max_pixels=WIDTH * HEIGHT - 1)
    assert decode_image(FILES["png rgb"], max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)


def test_more_pixels_than_pillow_itself_allows_are_reported_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(FILES["png rgb"])


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ImageError, match="empty: 0 x 5"):
        to_rgb(Image.new("RGB", (0, 5)))


def test_damaged_exif_counts_as_none() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert np.array_equal(np.asarray(decode_image(data)), opencv(data))


@pytest.mark.parametrize(
    ("size", "resized", "left", "top"),
    [
        ((640, 427), (335, 224), 55, 0),
        ((427, 640), (224, 335), 0, 55),
        ((640, 80), (1792, 224), 784, 0),
        ((223, 225), (224, 226), 0, 1),
        ((224, 224), (224, 224), 0, 0),
        ((1, 1), (224, 224), 0, 0),
        ((1, 100), (224, 22400), 0, 11088),
    ],
)
def test_clip_crop_is_the_centre_of_the_resized_image(
    size: tuple[int, int], resized: tuple[int, int], left: int, top: int
) -> None:
    image = Image.fromarray(noise(size[1], size[0], 3))
    whole = np.asarray(image.resize(resized, Image.Resampling.BICUBIC))
    assert np.array_equal(clip_crop(image), whole[top : top + 224, left : left + 224])


@pytest.mark.parametrize("size", [(2, 201), (201, 2), (3, 400), (400, 3), (30, 3100), (3100, 30)])
def test_extreme_aspects_are_within_one_level_of_the_resized_image(size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(size[1], size[0], 3))
    long = int(224 * max(size) / min(size))
    target = (long, 224) if size[0] > size[1] else (224, long)
    # Pillow swaps its two passes for very tall images that shrink, so make the passes explicit.
    across = image.resize((target[0], size[1]), Image.Resampling.BICUBIC)
    whole = np.asarray(across.resize(target, Image.Resampling.BICUBIC)).astype(int)
    left, top = (target[0] - 224) // 2, (target[1] - 224) // 2
    assert np.abs(clip_crop(image) - whole[top : top + 224, left : left + 224]).max() <= 1


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
def test_a_line_of_pixels_takes_little_memory(size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(size[1], size[0], 3))
    tracemalloc.start()
    square, resized = clip_crop(image), sam_resize(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert square.shape == (224, 224, 3)
    assert sorted(resized.shape) == [1, 3, 1024]
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("original", "resized"),
    [
        ((448, 440), (1024, 1006)),
        ((400, 600), (683, 1024)),
        ((80, 640), (128, 1024)),
        ((1, 1), (1024, 1024)),
        ((2049, 1), (1024, 1)),
        ((4000, 3000), (1024, 768)),
    ],
)
def test_sam_resize_rounds_the_short_side_and_keeps_at_least_one_pixel(
    original: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert sam_input_size(original) == resized
    assert sam_resize(Image.new("RGB", original[::-1])).shape == (*resized, 3)


def test_keys_name_pixels_and_shape() -> None:
    image = photo()
    key = image_key(image)
    assert len(key) == 32
    assert int(key, 16)
    assert image_key(decode_image(FILES["png rgb"])) == key
    turned = Image.frombytes("RGB", (HEIGHT, WIDTH), image.tobytes())
    assert image_key(turned) != key
    image.putpixel((0, 0), (1, 2, 3))
    assert image_key(image) != key


@each_recording(lambda one: one.generated)
def test_clip_pixels_equal_those_recorded_from_lisa(recording: Recording) -> None:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    crop = clip_crop(decode_image(recording.image_file.read_bytes()))
    normal = (torch.from_numpy(crop) / 255 - mean) / std
    in_each: dict[Precision, torch.Tensor] = {"fp32": normal, "bf16": normal.bfloat16().float()}
    for precision, pixels in in_each.items():
        row = torch.from_numpy(recording.array(precision, "clip_pixels_c0_row0_16"))
        assert (pixels[0, :16, 0] - row).abs().max() <= 1e-6
        sums = recording.numbers[precision]["clip_pixels"]
        wide = pixels.double()
        assert wide.mean().item() == pytest.approx(sums["mean"], abs=1e-5)
        assert wide.std(correction=0).item() == pytest.approx(sums["std"], abs=1e-5)
        assert wide.abs().max().item() == pytest.approx(sums["absmax"], abs=1e-6)
