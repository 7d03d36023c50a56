"""Image files that would take far more work than their size and their pixels let one expect."""

from __future__ import annotations

import os
import re
import struct
from io import BytesIO

MOST_SCANS = 32
"""Of a JPEG: each goes over all pixels and may be a few bytes long. Encoders write about ten."""

# What libtiff allows a JPEG inside a TIFF; else 100.
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", str(MOST_SCANS))

MOST_SEGMENTS = 10_000
MOST_PROFILES = 16
"""EXIF segments of a JPEG, which Pillow joins one by one, or colour profiles of a PNG, of which it
unpacks up to 1 MiB each. There is one of them."""

MOST_STRIPS = 1 << 16
"""Of a TIFF, or tiles: Pillow keeps a record of each, and reads 64 KiB for each."""

MOST_READS = 100_000
"""By Pillow's parsers, which take a microsecond for each; a PNG of 32 MiB needs 12,000."""

# Neither data (FF 00) nor restarts nor those without a length: what may stand in a scan.
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_START, _END, _SCAN, _EXIF = 0xD8, 0xD9, 0xDA, 0xE1
_STRIPS = (273, 324)  # tags: offsets of strips, of tiles


class CountedReader(BytesIO):
    """A file in memory that is read from `MOST_READS` times at most."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As usual. Raises `OSError` when it was called too often."""
        self._left -= 1
        if self._left < 0:
            raise OSError("it is in too many pieces")
        return super().read(size)


def too_laborious(data: bytes) -> str:
    """Why a file is not worth opening, in words; empty if it is."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_of_too_many(data)
    if data.startswith(b"\x89PNG") and data.count(b"iCCP") > MOST_PROFILES:
        return f"it has more than {MOST_PROFILES} colour profiles"
    if data.startswith((b"II", b"MM")) and _num_strips(data) > MOST_STRIPS:
        return f"it has more than {MOST_STRIPS} strips"
    return ""


def _jpeg_of_too_many(data: bytes) -> str:
    """Follows the segments as libjpeg does, to the end of the picture; others may come behind."""
    scans = profiles = segments = 0
    position = 2
    while found := _SEGMENT.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == _END:
            break
        segments += 1
        scans += marker == _SCAN
        profiles += marker == _EXIF and data.startswith(b"Exif\0\0", position + 2)
        for count, most, name in (
            (scans, MOST_SCANS, "scans"),
            (profiles, MOST_PROFILES, "EXIF segments"),
            (segments, MOST_SEGMENTS, "segments"),
        ):
            if count > most:
                return f"it has more than {most} {name}"
        if marker != _START:
            position += int.from_bytes(data[position : position + 2])
    return ""


def _num_strips(data: bytes) -> int:
    """As many as the first directory of a TIFF says, read as Pillow reads it; 0 for what is none.

    A directory that goes on behind the end of the file counts as far as it is there.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:3] == b"+"
    start, size, entry = ("8xQ", "Q", "HHQ8s") if big else ("4xI", "H", "HHI4s")
    try:
        (place,) = struct.unpack_from(order + start, data)
        (entries,) = struct.unpack_from(order + size, data, place)
    except (struct.error, OverflowError):  # a place behind the end, or behind all files' ends
        return 0
    row = struct.Struct(order + entry)
    place += struct.calcsize(order + size)
    entries = min(entries, (len(data) - place) // row.size)
    rows = row.iter_unpack(data[place : place + entries * row.size])
    return max((count for tag, _, count, _ in rows if tag in _STRIPS), default=0)
