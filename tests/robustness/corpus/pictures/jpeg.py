"""JPEG files with segments that lie, and EXIF traps."""

from __future__ import annotations

import struct
from collections.abc import Callable

from PIL import Image

from tests.pictures import encoded, gradient
from tests.robustness.case import READ, READ_OR_REFUSED, REFUSED

FINE = encoded(gradient(64, 48), "JPEG")
START, REST = FINE[:2], FINE[2:]


def segment(marker: int, data: bytes, length: int | None = None) -> bytes:
    """A marker segment."""
    length = len(data) + 2 if length is None else length
    return bytes([0xFF, marker]) + struct.pack(">H", length) + data


def with_segment(data: bytes) -> Callable[[], bytes]:
    """A good file with one more segment at its start."""
    return lambda: START + data + REST


def exif(data: bytes) -> Callable[[], bytes]:
    """A good file with this TIFF structure as EXIF."""
    return with_segment(segment(0xE1, b"Exif\0\0" + data))


def orientation(value: bytes, kind: int = 3, count: int = 1) -> Callable[[], bytes]:
    """EXIF whose orientation has this type, count and 4 bytes of value."""
    entry = struct.pack(">HHI", 0x0112, kind, count) + value
    return exif(b"MM\0\x2a\0\0\0\x08\0\1" + entry + b"\0\0\0\0")


def resized(width: int, height: int) -> Callable[[], bytes]:
    """A good file that claims another size."""
    place = FINE.index(b"\xff\xc0") + 5
    return lambda: FINE[:place] + struct.pack(">HH", height, width) + FINE[place + 4 :]


def without(marker: bytes) -> Callable[[], bytes]:
    """A good file without the segments of a kind."""

    def made() -> bytes:
        file = FINE
        while (place := file.find(marker)) >= 0:
            length = struct.unpack(">H", file[place + 2 : place + 4])[0]
            file = file[:place] + file[place + 2 + length :]
        return file

    return made


def patched(find: bytes, offset: int, value: bytes) -> Callable[[], bytes]:
    """A good file with other bytes at an offset behind a marker."""
    place = FINE.index(find) + offset
    return lambda: FINE[:place] + value + FINE[place + len(value) :]


def many_scans(width: int, height: int, count: int) -> Callable[[], bytes]:
    """A progressive picture whose last scan is repeated so many times."""

    def made() -> bytes:
        file = encoded(Image.new("L", (width, height), 100), "JPEG", progressive=True)
        place = file.rindex(b"\xff\xda")
        return file[:place] + file[place:-2] * count + file[-2:]

    return made


LOOP = b"MM\0\x2a\0\0\0\x08\0\1" + struct.pack(">HHII", 0x8769, 4, 1, 8) + b"\0\0\0\x08"
FAR = b"MM\0\x2a\xff\xff\xff\xf0"

FILES: dict[str, tuple[Callable[[], bytes], frozenset[int]]] = {
    "JPEG: only the start": (lambda: START, REFUSED),
    "JPEG: start and end": (lambda: START + b"\xff\xd9", REFUSED),
    "JPEG: 0 x 0": (resized(0, 0), REFUSED),
    "JPEG: no width": (resized(0, 48), REFUSED),
    "JPEG: no height": (resized(64, 0), REFUSED),
    "JPEG: 65535 squared": (resized(65535, 65535), REFUSED),
    "JPEG: 8191 squared of a few bytes": (resized(8191, 8191), READ_OR_REFUSED),
    "JPEG: 65500 x 1": (resized(65500, 1), READ_OR_REFUSED),
    "JPEG: no frame": (without(b"\xff\xc0"), REFUSED),
    "JPEG: no quantisation tables": (without(b"\xff\xdb"), REFUSED),
    "JPEG: no Huffman tables": (without(b"\xff\xc4"), READ_OR_REFUSED),
    "JPEG: no scan": (lambda: FINE[: FINE.index(b"\xff\xda")], REFUSED),
    "JPEG: 12 bits": (patched(b"\xff\xc0", 4, b"\x0c"), REFUSED),
    "JPEG: 0 bits": (patched(b"\xff\xc0", 4, b"\0"), REFUSED),
    "JPEG: no components": (patched(b"\xff\xc0", 9, b"\0"), REFUSED),
    "JPEG: 255 components": (patched(b"\xff\xc0", 9, b"\xff"), REFUSED),
    "JPEG: sampling 0": (patched(b"\xff\xc0", 11, b"\0"), REFUSED),
    "JPEG: sampling 15": (patched(b"\xff\xc0", 11, b"\xff"), REFUSED),
    "JPEG: lossless": (patched(b"\xff\xc0", 1, b"\xc3"), REFUSED),
    "JPEG: arithmetic coding": (patched(b"\xff\xc0", 1, b"\xc9"), READ_OR_REFUSED),
    "JPEG: hierarchical": (patched(b"\xff\xc0", 1, b"\xc5"), REFUSED),
    "JPEG: a Huffman table of noise": (patched(b"\xff\xc4", 5, b"\xff" * 16), REFUSED),
    "JPEG: a scan of noise": (patched(b"\xff\xda", 14, b"\xff" * 200), READ_OR_REFUSED),
    "JPEG: a segment of length 0": (with_segment(segment(0xE5, b"", 0)), READ_OR_REFUSED),
    "JPEG: a segment longer than the file": (
        with_segment(segment(0xE5, b"", 0xFFFF)),
        READ_OR_REFUSED,
    ),
    "JPEG: 500 comments of 64 kB": (
        with_segment(segment(0xFE, b"a" * 65000) * 200),
        READ_OR_REFUSED,
    ),
    "JPEG: 20 scans": (many_scans(64, 48, 14), READ),
    "JPEG: a thousand scans": (many_scans(64, 48, 1000), REFUSED),
    "JPEG: 20000 scans of 8192 squared": (many_scans(8192, 8192, 20_000), REFUSED),
    "JPEG: five million comments of nothing": (
        with_segment(segment(0xFE, b"") * 5_000_000),
        REFUSED,
    ),
    "JPEG: 20 MB of fill bytes": (with_segment(b"\xff" * 20_000_000), REFUSED),
    "JPEG: EXIF in 9000 parts": (
        with_segment(
            segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 200 + segment(0xE1, b"Exif\0\0a") * 9000
        ),
        REFUSED,
    ),
    "JPEG: a colour profile of noise": (
        with_segment(segment(0xE2, b"ICC_PROFILE\0\x01\x01" + b"\xff" * 99)),
        READ_OR_REFUSED,
    ),
    "JPEG: a colour profile in 255 parts of which one is there": (
        with_segment(segment(0xE2, b"ICC_PROFILE\0\x05\xff" + b"\xff" * 99)),
        READ_OR_REFUSED,
    ),
    "JPEG: Adobe's segment cut off": (with_segment(segment(0xEE, b"Adobe\0")), READ_OR_REFUSED),
    "JPEG: an unknown colour transform": (
        with_segment(segment(0xEE, b"Adobe\0\x64\0\0\0\0\x77")),
        READ_OR_REFUSED,
    ),
    "JPEG: Photoshop's segment of noise": (
        with_segment(segment(0xED, b"Photoshop 3.0\0008BIM" + b"\xff" * 60)),
        READ_OR_REFUSED,
    ),
    "JPEG: a multi-picture index of noise": (
        with_segment(segment(0xE2, b"MPF\0MM\0\x2a" + b"\xff" * 60)),
        READ_OR_REFUSED,
    ),
    "JPEG: a multi-picture index with a loop": (
        with_segment(segment(0xE2, b"MPF\0" + LOOP)),
        READ_OR_REFUSED,
    ),
    "JPEG: XMP that is no XML": (
        with_segment(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta")),
        READ_OR_REFUSED,
    ),
    "JPEG: XMP with an orientation of words": (
        with_segment(segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="nine"/>')),
        READ_OR_REFUSED,
    ),
    "JPEG: EXIF of noise": (exif(b"\xff" * 200), READ_OR_REFUSED),
    "JPEG: EXIF of nothing": (exif(b""), READ_OR_REFUSED),
    "JPEG: EXIF that leads into itself": (exif(LOOP), READ_OR_REFUSED),
    "JPEG: EXIF that leads out of the file": (exif(FAR), READ_OR_REFUSED),
    "JPEG: EXIF of 65535 entries": (
        exif(b"MM\0\x2a\0\0\0\x08\xff\xff" + b"\0" * 400),
        READ_OR_REFUSED,
    ),
    "JPEG: orientation 0": (orientation(b"\0\0\0\0"), READ),
    "JPEG: orientation 9": (orientation(b"\0\x09\0\0"), READ),
    "JPEG: orientation 65535": (orientation(b"\xff\xff\0\0"), READ),
    "JPEG: orientation as text": (orientation(b"six\0", kind=2, count=4), READ),
    "JPEG: orientation as a fraction over 0": (orientation(b"\0\0\0\0", kind=5), READ),
    "JPEG: orientation of an unknown type": (orientation(b"\0\6\0\0", kind=77), READ),
    "JPEG: 2^32 - 1 orientations": (orientation(b"\0\0\0\x08", count=2**32 - 1), READ),
    "JPEG: three orientations": (orientation(b"\0\0\0\x08", count=3), READ),
    "JPEG: HTML behind the picture": (lambda: FINE + b"<script>alert(1)</script>", READ),
    "JPEG: a second picture behind it": (lambda: FINE + FINE, READ),
    "JPEG: CMYK": (lambda: encoded(gradient(64, 48).convert("CMYK"), "JPEG"), READ),
    "JPEG: progressive": (lambda: encoded(gradient(64, 48), "JPEG", progressive=True), READ),
    "JPEG: one pixel": (lambda: encoded(Image.new("RGB", (1, 1)), "JPEG"), READ),
}
