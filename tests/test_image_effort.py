"""Files of little that would take much: refused before they do, and ordinary ones are not."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encoded, gradient
from vllm_csp.image_effort import MOST_SCANS
from vllm_csp.images import ImageError, decode_image

SIDE = 4096
SECONDS = 5
"""Of the processor, which other programs slow down; refusals take a tenth of it."""

PROGRESSIVE = encoded(Image.new("L", (SIDE, SIDE), 100), "JPEG", progressive=True)
PLAIN = encoded(gradient(64, 48), "JPEG")


def with_scans(file: bytes, count: int) -> bytes:
    """A JPEG whose last scan is repeated, to have so many."""
    place = file.rindex(b"\xff\xda")
    return file[:place] + file[place:-2] * (count - file.count(b"\xff\xda") + 1) + file[-2:]


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with these at its start."""
    return PLAIN[:2] + b"".join(segments) + PLAIN[2:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    """A PNG with these behind its header."""
    fine = encoded(gradient(8, 8))
    return fine[:33] + b"".join(chunks) + fine[33:]


def bmp_of_line_ends() -> bytes:
    """Two lines of 2^25 pixels, of which each is one pixel and the end of the line."""
    body = b"\1\1\0\0" * 2
    head = struct.pack("<2sIHHI", b"BM", 1078 + len(body), 0, 0, 1078)
    return (
        head + struct.pack("<IiiHHIIiiII", 40, 1 << 25, 2, 1, 8, 1, 8, 0, 0, 256, 0) + bytes(1024)
    ) + body


def tiff_of_strips(count: int, magic: bytes = b"II*\0") -> bytes:
    """A column of pixels, each in a strip of its own; all strips are in the same place."""
    entries = [(256, 1), (257, count), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries]
    rows += [struct.pack("<HHII", tag, 4, count, 300) for tag in (273, 279)]
    head = magic + struct.pack("<IH", 8, len(rows)) + b"".join(sorted(rows)) + bytes(4)
    return head.ljust(300, b"\0") + struct.pack("<I", 300) * count


LABORIOUS: dict[str, Callable[[], bytes]] = {
    "a JPEG of 300 scans": lambda: with_scans(PROGRESSIVE, 300),
    "a JPEG of scans behind fill bytes": lambda: with_scans(PROGRESSIVE, 300).replace(
        b"\xff\xda", b"\xff\xff\xff\xda"
    ),
    "a JPEG of scans behind restarts": lambda: with_scans(PROGRESSIVE, 300).replace(
        b"\xff\xda", b"\xff\xd0\xff\xda"
    ),
    "a JPEG of scans behind a comment about scans": lambda: with_scans(
        PROGRESSIVE[:2] + segment(0xFE, b"\xff\xd9\xff\xda") + PROGRESSIVE[2:], 300
    ),
    "a JPEG of empty comments": lambda: with_segments(segment(0xFE, b"") * 5_000_000),
    "a JPEG of fill bytes": lambda: with_segments(b"\xff" * 20_000_000),
    "a JPEG of EXIF in small parts behind a large one": lambda: with_segments(
        segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 200, segment(0xE1, b"Exif\0\0a") * 9_000
    ),
    "a PNG of colour profiles": lambda: png(
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes((1 << 20) - 1), 9)) * 10_000
    ),
    "a PNG of empty chunks": lambda: png(chunk(b"abCd", b"") * 1_500_000),
    "a GIF of small comments": lambda: (
        encoded(gradient(8, 8), "GIF")[:13] + bytes(768) + b"!\xfe\1a\0" * 4_000_000
    ),
    "a BMP of line ends": bmp_of_line_ends,
    "a TIFF of strips": lambda: tiff_of_strips(2_000_000),
    "a PGM of comments as text": lambda: b"P2 8 8 9\n" + b"#\n" * 1_000_000 + b"1 " * 64,
    "a PPM of comments before its size": lambda: b"P6 " + b"#\n" * 10_000_000 + b"8 8 255\n",
    "a TIFF with a JPEG of 90 scans": lambda: tiff_with_jpeg(with_scans(PROGRESSIVE, 90)),
}


def tiff_with_jpeg(file: bytes) -> bytes:
    """One strip, compressed as JPEG."""
    entries = [(256, SIDE), (257, SIDE), (258, 8), (259, 7), (262, 1), (273, 300), (277, 1)]
    entries += [(278, SIDE), (279, len(file))]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows).ljust(300, b"\0") + file


@pytest.mark.parametrize("name", LABORIOUS)
def test_what_takes_far_more_work_than_its_pixels_is_refused_at_once(name: str) -> None:
    file = LABORIOUS[name]()
    assert len(file) < 24 << 20
    began = time.process_time()
    with pytest.raises(ImageError, match=r"too long to decode|too many pieces|decoder error"):
        decode_image(file)
    assert time.process_time() - began < SECONDS


def test_scans_are_refused_from_one_too_many_on() -> None:
    small = encoded(gradient(64, 48), "JPEG", progressive=True)
    assert decode_image(with_scans(small, MOST_SCANS)).size == (64, 48)
    with pytest.raises(ImageError, match=f"more than {MOST_SCANS} scans"):
        decode_image(with_scans(small, MOST_SCANS + 1))


def test_scans_of_other_pictures_in_a_file_do_not_count() -> None:
    """Thumbnails in its segments, and what phones write behind the picture."""
    many = with_scans(encoded(gradient(8, 8), "JPEG", progressive=True), 100)
    assert decode_image(with_segments(segment(0xE1, b"Exif\0\0" + many))).size == (64, 48)
    assert decode_image(PLAIN + many + b"\xff\xda" * 1000).size == (64, 48)


def test_tiffs_of_many_strips_are_read() -> None:
    assert decode_image(tiff_of_strips(5000)).size == (1, 5000)


def test_large_pngs_in_the_pieces_that_encoders_write_are_read() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2500, 3001), dtype=np.uint8)
    noise[:, 0] = 0  # no filter
    data = zlib.compress(noise.tobytes(), 1)
    parts = [chunk(b"IDAT", data[i : i + 8192]) for i in range(0, len(data), 8192)]
    assert len(parts) > 500
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3000, 2500, 8, 0, 0, 0, 0))
    image = decode_image(b"\x89PNG\r\n\x1a\n" + head + b"".join(parts) + chunk(b"IEND", b""))
    assert np.array_equal(np.asarray(image)[..., 0], noise[:, 1:])
