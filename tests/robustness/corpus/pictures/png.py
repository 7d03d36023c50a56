"""PNG files put together chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from tests.pictures import encoded, gradient
from tests.robustness.case import READ, READ_OR_REFUSED, REFUSED

MAGIC = b"\x89PNG\r\n\x1a\n"
FINE = encoded(gradient(64, 48))


def chunk(kind: bytes, data: bytes, crc: int | None = None, length: int | None = None) -> bytes:
    """One chunk; crc and length: lies."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    length = len(data) if length is None else length
    return struct.pack(">I", length) + kind + data + struct.pack(">I", crc)


def header(
    width: int = 8,
    height: int = 8,
    depth: int = 8,
    colours: int = 2,
    compression: int = 0,
    filters: int = 0,
    interlace: int = 0,
) -> bytes:
    """An IHDR chunk."""
    fields = struct.pack(">IIBBBBB", width, height, depth, colours, compression, filters, interlace)
    return chunk(b"IHDR", fields)


ROWS = zlib.compress(b"".join(b"\0" + bytes(range(24)) for _ in range(8)))
DATA = chunk(b"IDAT", ROWS)
END = chunk(b"IEND", b"")
LINE = 60_000_000


def png(*chunks: bytes) -> Callable[[], bytes]:
    """A file of these chunks."""
    return lambda: MAGIC + b"".join(chunks)


def bomb(kind: bytes, before: bytes) -> Callable[[], bytes]:
    """100 MB of zeros, deflated to 100 kB, in a chunk beside the picture."""

    def made() -> bytes:
        packer = zlib.compressobj(9)
        block = b"\0" * (1 << 20)
        packed = b"".join(packer.compress(block) for _ in range(100)) + packer.flush()
        return MAGIC + header() + chunk(kind, before + packed) + DATA + END

    return made


def animated(frames: int, width: int = 8) -> Callable[[], bytes]:
    """An animated PNG that promises so many frames."""
    control = chunk(b"acTL", struct.pack(">II", frames, 0))
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, 8, 0, 0, 1, 1, 0, 0))
    return png(header(), control, frame, DATA, END)


FILES: dict[str, tuple[Callable[[], bytes], frozenset[int]]] = {
    "PNG: only the magic": (png(), REFUSED),
    "PNG: no header": (png(DATA, END), REFUSED),
    "PNG: two headers": (png(header(), header(9, 9), DATA, END), READ_OR_REFUSED),
    "PNG: no data": (png(header(), END), REFUSED),
    "PNG: no end": (png(header(), DATA), READ_OR_REFUSED),
    "PNG: nothing after the header": (png(header()), REFUSED),
    "PNG: the data before the header": (png(DATA, header(), END), REFUSED),
    "PNG: wrong checksum of the header": (
        png(chunk(b"IHDR", header()[8:21], crc=1), DATA, END),
        REFUSED,
    ),
    "PNG: wrong checksum of the data": (
        png(header(), chunk(b"IDAT", ROWS, crc=1), END),
        READ_OR_REFUSED,
    ),
    "PNG: a short header": (png(chunk(b"IHDR", b"\0\0\0\1"), DATA, END), REFUSED),
    "PNG: 0 x 0": (png(header(0, 0), DATA, END), REFUSED),
    "PNG: no width": (png(header(0, 8), DATA, END), REFUSED),
    "PNG: no height": (png(header(8, 0), DATA, END), REFUSED),
    "PNG: 2^31 - 1 squared": (png(header(2**31 - 1, 2**31 - 1), DATA, END), REFUSED),
    "PNG: 2^32 - 1 squared": (png(header(2**32 - 1, 2**32 - 1), DATA, END), REFUSED),
    "PNG: 2^31 - 1 wide": (png(header(2**31 - 1, 1), DATA, END), REFUSED),
    "PNG: 2^31 - 1 high": (png(header(1, 2**31 - 1), DATA, END), REFUSED),
    "PNG: 65535 squared": (png(header(65535, 65535), DATA, END), REFUSED),
    "PNG: one pixel too many": (png(header(2**26 + 1, 1), DATA, END), REFUSED),
    "PNG: a declared area that is not there": (png(header(4000, 4000), DATA, END), REFUSED),
    "PNG: 5 bits": (png(header(depth=5), DATA, END), REFUSED),
    "PNG: 255 bits": (png(header(depth=255), DATA, END), REFUSED),
    "PNG: colour type 5": (png(header(colours=5), DATA, END), REFUSED),
    "PNG: compression 1": (png(header(compression=1), DATA, END), READ_OR_REFUSED),
    "PNG: filter method 9": (png(header(filters=9), DATA, END), REFUSED),
    "PNG: interlace 7": (png(header(interlace=7), DATA, END), READ_OR_REFUSED),
    "PNG: row filter 200": (
        png(header(), chunk(b"IDAT", zlib.compress((b"\xc8" + bytes(24)) * 8)), END),
        REFUSED,
    ),
    "PNG: data that is not deflated": (
        png(header(), chunk(b"IDAT", b"\xff" * 64), END),
        REFUSED,
    ),
    "PNG: too few rows": (
        png(header(), chunk(b"IDAT", zlib.compress(bytes(25) * 3)), END),
        READ_OR_REFUSED,
    ),
    "PNG: too many rows": (
        png(header(), chunk(b"IDAT", zlib.compress(bytes(25) * 999)), END),
        READ_OR_REFUSED,
    ),
    "PNG: 100 MB behind an 8 x 8 header": (
        lambda: MAGIC + header() + chunk(b"IDAT", zlib.compress(bytes(100_000_000), 9)) + END,
        READ_OR_REFUSED,
    ),
    "PNG: a palette picture without palette": (png(header(colours=3), DATA, END), READ_OR_REFUSED),
    "PNG: an empty palette": (
        png(header(colours=3), chunk(b"PLTE", b""), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: a palette of 1000": (
        png(header(colours=3), chunk(b"PLTE", bytes(3000)), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: too much transparency": (
        png(header(), chunk(b"tRNS", bytes(999)), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: too little transparency": (
        png(header(), chunk(b"tRNS", b"\0"), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: a chunk of 2^32 - 1 bytes": (
        png(header(), chunk(b"IDAT", ROWS, length=2**32 - 1), END),
        READ_OR_REFUSED,
    ),
    "PNG: a chunk of 2^31 - 1 bytes": (
        png(header(), chunk(b"tEXt", b"a\0b", length=2**31 - 1), DATA, END),
        REFUSED,
    ),
    "PNG: a chunk without letters": (
        png(header(), chunk(b"\0\1\2\3", b"?"), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: an unknown critical chunk": (
        png(header(), chunk(b"CRIT", b"?"), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: 5000 texts": (
        png(header(), *(chunk(b"tEXt", b"a%d\0b" % i) for i in range(5000)), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: a compressed text of 100 MB": (bomb(b"zTXt", b"a\0\0"), READ_OR_REFUSED),
    "PNG: an international text of 100 MB": (bomb(b"iTXt", b"a\0\1\0\0\0"), READ_OR_REFUSED),
    "PNG: a colour profile of 100 MB": (bomb(b"iCCP", b"a\0\0"), READ_OR_REFUSED),
    "PNG: 10000 colour profiles of 1 MB": (
        lambda: png(
            header(),
            chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes((1 << 20) - 1), 9)) * 10_000,
            DATA,
            END,
        )(),
        REFUSED,
    ),
    "PNG: a million chunks of nothing": (
        lambda: png(header(), chunk(b"abCd", b"") * 1_000_000, DATA, END)(),
        REFUSED,
    ),
    "PNG: a colour profile of noise": (
        png(header(), chunk(b"iCCP", b"a\0\0" + b"\xff" * 50), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: EXIF of noise": (
        png(header(), chunk(b"eXIf", b"MM\0\x2a" + b"\xff" * 80), DATA, END),
        READ_OR_REFUSED,
    ),
    "PNG: a line of 60 million pixels": (
        lambda: png(
            header(LINE, 1, colours=0), chunk(b"IDAT", zlib.compress(bytes(LINE + 1), 1)), END
        )(),
        READ,
    ),
    "PNG: no frames": (animated(0), READ_OR_REFUSED),
    "PNG: 2^32 - 1 frames": (animated(2**32 - 1), READ_OR_REFUSED),
    "PNG: a frame wider than the picture": (animated(2, width=4000), READ_OR_REFUSED),
    "PNG: gamma 0": (png(header(), chunk(b"gAMA", bytes(4)), DATA, END), READ_OR_REFUSED),
    "PNG: 2^32 - 1 dots per metre": (
        png(header(), chunk(b"pHYs", b"\xff" * 8 + b"\1"), DATA, END),
        READ_OR_REFUSED,
    ),
}
