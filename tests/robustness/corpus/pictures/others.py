"""Damaged files of the other formats that are read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, features

from tests.pictures import encoded, gradient
from tests.robustness.case import READ, READ_OR_REFUSED, REFUSED

Maker = Callable[[], bytes]
SMALL = gradient(16, 12)
GIF = encoded(gradient(64, 48), "GIF")
BMP = encoded(SMALL, "BMP")
WEBP = encoded(SMALL, "WEBP")


def patched(file: bytes, place: int, value: bytes) -> Maker:
    """A file with other bytes at one place."""
    return lambda: file[:place] + value + file[place + len(value) :]


def bmp(
    width: int = 16, height: int = 12, bits: int = 24, behind: bytes = BMP[54:], **fields: int
) -> Maker:
    """A BMP whose header says this."""
    values = {"offset": 54, "header": 40, "planes": 1, "compression": 0, "colours": 0, **fields}

    def made() -> bytes:
        head = struct.pack("<2sIHHI", b"BM", len(BMP), 0, 0, values["offset"])
        info = struct.pack(
            "<IiiHHIIiiII",
            values["header"],
            width,
            height,
            values["planes"],
            bits,
            values["compression"],
            0,
            0,
            0,
            values["colours"],
            0,
        )
        return head + info + behind

    return made


def tiff(*entries: tuple[int, int, int, int], behind: bytes = b"\x80" * 600) -> Maker:
    """A little-endian TIFF of these (tag, type, count, value); 16 x 12 RGB unless they differ."""
    tags: dict[int, tuple[int, int, int]] = {
        256: (4, 1, 16),
        257: (4, 1, 12),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 300),
        277: (3, 1, 1),
        278: (4, 1, 12),
        279: (4, 1, 192),
    }
    tags.update({tag: (kind, count, value) for tag, kind, count, value in entries})

    def made() -> bytes:
        rows = [struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags)]
        head = b"II\x2a\0\x08\0\0\0" + struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
        return head.ljust(300, b"\0") + behind

    return made


def webp(*chunks: tuple[bytes, bytes]) -> Maker:
    """A RIFF container of these chunks."""

    def made() -> bytes:
        body = b"WEBP"
        for name, data in chunks:
            body += name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    return made


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """A VP8X chunk."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def many_frames() -> bytes:
    """A GIF of 2000 frames, of which the first is what counts."""
    frame = GIF[GIF.index(b"\x2c", 13 + 3 * 256) : -1]
    return GIF[:-1] + frame * 2000 + b"\x3b"


PICTURES: dict[str, tuple[Maker, frozenset[int]]] = {
    "GIF: 0 x 0": (patched(GIF, 6, bytes(4)), READ_OR_REFUSED),
    "GIF: 65535 squared": (patched(GIF, 6, b"\xff" * 4), READ_OR_REFUSED),
    "GIF: no picture": (lambda: GIF[:13] + bytes(768) + b"\x3b", REFUSED),
    "GIF: only the header": (lambda: GIF[:13], REFUSED),
    "GIF: a comment without end": (
        lambda: GIF[:13] + bytes(768) + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 2000,
        REFUSED,
    ),
    "GIF: codes of 0 bits": (
        lambda: GIF[:13] + bytes(768) + b"\x2c" + bytes(4) + b"\x40\0\x30\0\0\0\1\x3b",
        REFUSED,
    ),
    "GIF: codes of 200 bits": (
        lambda: GIF[:13] + bytes(768) + b"\x2c" + bytes(4) + b"\x40\0\x30\0\0\xc8\1\xff\0\x3b",
        REFUSED,
    ),
    "GIF: codes of noise": (
        lambda: (
            GIF[:13]
            + bytes(768)
            + b"\x2c"
            + bytes(4)
            + b"\x40\0\x30\0\0\x08\xff"
            + b"\xff" * 255
            + b"\0\x3b"
        ),
        READ_OR_REFUSED,
    ),
    "GIF: a frame far outside": (
        lambda: GIF[:13] + bytes(768) + b"\x2c\xff\xff\xff\xff\xff\xff\xff\xff\0\x08\1\1\0\x3b",
        READ_OR_REFUSED,
    ),
    "GIF: 2000 frames": (many_frames, READ_OR_REFUSED),
    "GIF: animated": (
        lambda: encoded(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(180)]),
        READ,
    ),
    "BMP: 0 x 0": (bmp(0, 0), REFUSED),
    "BMP: a negative width": (bmp(-16), REFUSED),
    "BMP: the lowest height": (bmp(height=-(2**31)), REFUSED),
    "BMP: top to bottom": (bmp(height=-12), READ),
    "BMP: 2^31 - 1 squared": (bmp(2**31 - 1, 2**31 - 1), REFUSED),
    "BMP: 8000 squared of 600 bytes": (bmp(8000, 8000), REFUSED),
    "BMP: 0 bits": (bmp(bits=0), REFUSED),
    "BMP: 64 bits": (bmp(bits=64), REFUSED),
    "BMP: 7 bits": (bmp(bits=7), REFUSED),
    "BMP: unknown compression": (bmp(compression=99), REFUSED),
    "BMP: run lengths of noise": (bmp(bits=8, compression=1, colours=1), READ_OR_REFUSED),
    "BMP: run lengths of two lines of 2^25 pixels": (
        bmp(1 << 25, 2, bits=8, compression=1, colours=1, behind=b"\1\1\0\0" * 2),
        REFUSED,
    ),
    "BMP: a JPEG within": (bmp(bits=0, compression=4), REFUSED),
    "BMP: 2^32 - 1 colours": (bmp(bits=8, colours=2**32 - 1), REFUSED),
    "BMP: pixels outside the file": (bmp(offset=2**31), REFUSED),
    "BMP: pixels within the header": (bmp(offset=2), READ_OR_REFUSED),
    "BMP: a header of 0 bytes": (bmp(header=0), REFUSED),
    "BMP: a header of 2^32 - 1 bytes": (bmp(header=2**32 - 1), REFUSED),
    "TIFF: no entries": (lambda: b"II\x2a\0\x08\0\0\0\0\0\0\0\0\0", REFUSED),
    "TIFF: a directory outside the file": (lambda: b"II\x2a\0\xff\xff\xff\x7f", REFUSED),
    "TIFF: a directory of 65535 entries": (lambda: b"II\x2a\0\x08\0\0\0\xff\xff", REFUSED),
    "TIFF: a directory that leads to itself": (
        lambda: tiff()()[:8] + tiff()()[8 : 8 + 2 + 9 * 12] + b"\x08\0\0\0" + tiff()()[122:],
        READ_OR_REFUSED,
    ),
    "TIFF: 0 x 0": (tiff((256, 4, 1, 0), (257, 4, 1, 0)), REFUSED),
    "TIFF: 2^32 - 1 squared": (tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1)), REFUSED),
    "TIFF: a width of two values": (tiff((256, 4, 2, 300)), READ_OR_REFUSED),
    "TIFF: a width of letters": (tiff((256, 2, 4, 0x41414141)), REFUSED),
    "TIFF: strips outside the file": (tiff((273, 4, 1, 2**31)), REFUSED),
    "TIFF: 2^30 strips": (tiff((273, 4, 2**30, 300), (279, 4, 2**30, 300)), REFUSED),
    "TIFF: four million strips": (
        tiff(
            (256, 4, 1, 1),
            (257, 4, 1, 1 << 22),
            (273, 4, 1 << 22, 300),
            (278, 4, 1, 1),
            (279, 4, 1 << 22, 300),
            behind=struct.pack("<I", 300) * (1 << 22),
        ),
        REFUSED,
    ),
    "TIFF: strips of 2^31 bytes": (tiff((279, 4, 1, 2**31)), READ_OR_REFUSED),
    "TIFF: no rows per strip": (tiff((278, 4, 1, 0)), READ_OR_REFUSED),
    "TIFF: unknown compression": (tiff((259, 3, 1, 31337)), REFUSED),
    "TIFF: JPEG of noise": (tiff((259, 3, 1, 7)), REFUSED),
    "TIFF: LZW of noise": (tiff((259, 3, 1, 5)), REFUSED),
    "TIFF: fax of noise": (tiff((259, 3, 1, 4), (258, 3, 1, 1)), READ_OR_REFUSED),
    "TIFF: 100 MB deflated": (
        lambda: tiff(
            (259, 3, 1, 8),
            (279, 4, 1, 99_000),
            behind=zlib.compress(bytes(100_000_000), 9),
        )(),
        READ_OR_REFUSED,
    ),
    "TIFF: 0 bits": (tiff((258, 3, 1, 0)), REFUSED),
    "TIFF: 33 bits": (tiff((258, 3, 1, 33)), REFUSED),
    "TIFF: 60000 samples": (tiff((277, 3, 1, 60000)), REFUSED),
    "TIFF: no samples": (tiff((277, 3, 1, 0)), READ_OR_REFUSED),
    "TIFF: tiles of no size": (
        tiff((322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 300), (325, 4, 1, 192)),
        READ_OR_REFUSED,
    ),
    "TIFF: tiles of 2^31": (
        tiff((322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 300), (325, 4, 1, 192)),
        READ_OR_REFUSED,
    ),
    "TIFF: an unknown photometry": (tiff((262, 3, 1, 999)), REFUSED),
    "TIFF: a palette that is not there": (tiff((262, 3, 1, 3)), READ_OR_REFUSED),
    "TIFF: orientation 77": (tiff((274, 3, 1, 77)), READ_OR_REFUSED),
    "TIFF: floating point": (lambda: encoded(SMALL.convert("F"), "TIFF"), REFUSED),
    "TIFF: NaN": (
        lambda: encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"),
        REFUSED,
    ),
    "TIFF: 32 bits": (lambda: encoded(Image.new("I", (9, 9), 1 << 20), "TIFF"), REFUSED),
    "TIFF: negative numbers": (lambda: encoded(Image.new("I", (9, 9), -5), "TIFF"), REFUSED),
    "TIFF: CMYK": (lambda: encoded(SMALL.convert("CMYK"), "TIFF"), READ),
    "TIFF: Lab": (lambda: encoded(Image.new("LAB", (9, 9)), "TIFF"), READ_OR_REFUSED),
    "TIFF: 64-bit offsets of noise": (
        lambda: b"II\x2b\0\x08\0\0\0" + b"\xff" * 64,
        REFUSED,
    ),
    "TIFF: many pages": (
        lambda: encoded(SMALL, "TIFF", save_all=True, append_images=[SMALL] * 300),
        READ,
    ),
    "WebP: a canvas of 2^24 squared": (webp(canvas(1 << 24, 1 << 24)), REFUSED),
    "WebP: a canvas without a picture": (webp(canvas(16, 12)), REFUSED),
    "WebP: an animation without frames": (
        webp(canvas(16, 12, flags=2), (b"ANIM", bytes(6))),
        REFUSED,
    ),
    "WebP: no chunks": (webp(), REFUSED),
    "WebP: a picture of noise": (webp((b"VP8 ", b"\xff" * 100)), REFUSED),
    "WebP: a lossless picture of noise": (webp((b"VP8L", b"\x2f" + b"\xff" * 100)), REFUSED),
    "WebP: 16383 squared lossless": (
        webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(40))),
        REFUSED,
    ),
    "WebP: a length of 0": (patched(WEBP, 4, bytes(4)), READ_OR_REFUSED),
    "WebP: a length of 2^32 - 1": (patched(WEBP, 4, b"\xff" * 4), READ_OR_REFUSED),
    "WebP: EXIF of noise": (
        lambda: encoded(SMALL, "WEBP", exif=b"Exif\0\0" + b"\xff" * 60),
        READ,
    ),
    "WebP: animated": (
        lambda: encoded(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(90)]),
        READ,
    ),
    "PNM: nothing behind the header": (lambda: b"P6 4 4 255\n", REFUSED),
    "PNM: 0 x 0": (lambda: b"P6 0 0 255\n", REFUSED),
    "PNM: 100000 squared": (lambda: b"P6 100000 100000 255\n" + bytes(99), REFUSED),
    "PNM: a negative side": (lambda: b"P6 -4 4 255\n" + bytes(48), REFUSED),
    "PNM: a side of 100000 digits": (lambda: b"P6 " + b"9" * 100_000 + b" 4 255\n", REFUSED),
    "PNM: greatest value 0": (lambda: b"P6 4 4 0\n" + bytes(48), REFUSED),
    "PNM: greatest value 70000": (lambda: b"P6 4 4 70000\n" + bytes(96), REFUSED),
    "PNM: a comment without end": (lambda: b"P6 #" + b"a" * 100_000, REFUSED),
    "PNM: letters for numbers": (lambda: b"P3 2 2 255\na b c d", REFUSED),
    "PNM: numbers over the greatest": (lambda: b"P2 2 2 9\n1 2 3 99999999999\n", REFUSED),
    "PNM: bits as text": (lambda: b"P1 2 2\n0 1 2 3\n", REFUSED),
    "PNM: a million comments as text": (
        lambda: b"P2 8 8 9\n" + b"#\n" * 1_000_000 + b"1 " * 64,
        REFUSED,
    ),
    "PNM: ten million comments before its size": (
        lambda: b"P6 " + b"#\n" * 10_000_000 + b"8 8 255\n" + bytes(192),
        REFUSED,
    ),
    "PNM: floating point": (lambda: b"Pf 2 2 -1.0\n" + bytes(16), READ_OR_REFUSED),
    "PNM: floating point scaled by 0": (lambda: b"Pf 2 2 0\n" + bytes(16), READ_OR_REFUSED),
    "PNM: any map": (
        lambda: b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 9\nMAXVAL 255\nTUPLTYPE X\nENDHDR\n" + bytes(99),
        REFUSED,
    ),
    "PNM: 16 bits": (lambda: b"P5 2 2 65535\n" + bytes(8), READ),
    "AVIF: only a brand": (lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", REFUSED),
    "AVIF: boxes of noise": (
        lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf\0\0\0\x40meta" + b"\xff" * 56,
        REFUSED,
    ),
    "AVIF: a box of 2^64 - 1 bytes": (
        lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf\0\0\0\x01mdat" + b"\xff" * 8,
        REFUSED,
    ),
}


def _cut() -> dict[str, tuple[Maker, frozenset[int]]]:
    """Each format cut at three places."""
    found: dict[str, tuple[Maker, frozenset[int]]] = {}
    formats = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
    if features.check("avif"):
        formats.append("AVIF")
    for name in formats:

        def cut(share: float, name: str = name) -> Maker:
            def made() -> bytes:
                file = encoded(gradient(160, 120), name)
                return file[: max(6, int(len(file) * share))]

            return made

        found[f"{name} of 6 bytes"] = (cut(0), REFUSED)
        found[f"a tenth of a {name}"] = (cut(0.1), READ_OR_REFUSED if name == "TIFF" else REFUSED)
        found[f"half a {name}"] = (cut(0.5), REFUSED)
    return found


FILES = {**PICTURES, **_cut()}
