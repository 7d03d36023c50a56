"""Files of other kinds, and those that only look like a picture."""

from __future__ import annotations

import base64
import gzip
import io
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable

from PIL import Image

from tests.pictures import encoded, gradient
from tests.robustness.case import READ, READ_OR_REFUSED, REFUSED
from tests.robustness.corpus.pictures import jpeg, png

LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]><svg xmlns="http://www.w3.org/2000/svg"><text>&d;</text></svg>"""
ENTITY = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg"><text>&a;</text></svg>"""


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return (os.system, ("touch /tmp/vllm-csp-was-here",))


def zipped() -> bytes:
    """A ZIP file with a picture."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", png.FINE)
    return stream.getvalue()


def tarred() -> bytes:
    """A tar file with a picture."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("../../a.png")
        entry.size = len(png.FINE)
        archive.addfile(entry, io.BytesIO(png.FINE))
    return stream.getvalue()


def saved(file_format: str, image: Image.Image | None = None) -> Callable[[], bytes]:
    """A good picture in a format that is not read."""
    return lambda: encoded(image or gradient(16, 16), file_format)


def fixed(content: bytes) -> Callable[[], bytes]:
    """These bytes."""
    return lambda: content


FILES: dict[str, tuple[Callable[[], bytes], frozenset[int]]] = {
    "nothing": (fixed(b""), REFUSED),
    "one byte": (fixed(b"\x89"), REFUSED),
    "zeros": (fixed(bytes(4096)), REFUSED),
    "ones": (fixed(b"\xff" * 4096), REFUSED),
    "noise": (lambda: random.Random(0).randbytes(10_000), REFUSED),
    "a megabyte of noise": (lambda: random.Random(1).randbytes(1 << 20), REFUSED),
    "text": (fixed(b"not an image"), REFUSED),
    "text in UTF-16": (fixed("not an image".encode("utf-16")), REFUSED),
    "HTML": (fixed(b"<!DOCTYPE html><html><img src=x onerror=alert(1)></html>"), REFUSED),
    "SVG": (fixed(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), REFUSED),
    "SVG that reads a file": (fixed(ENTITY), REFUSED),
    "SVG of a billion laughs": (fixed(LAUGHS), REFUSED),
    "PDF": (fixed(b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF"), REFUSED),
    "PostScript": (saved("EPS"), REFUSED),
    "PostScript that runs a command": (
        fixed(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n"),
        REFUSED,
    ),
    "ZIP": (zipped, REFUSED),
    "tar": (tarred, REFUSED),
    "gzip of a PNG": (lambda: gzip.compress(png.FINE), REFUSED),
    "a program": (fixed(b"\x7fELF\x02\x01\x01" + bytes(60)), REFUSED),
    "a Windows program": (fixed(b"MZ" + bytes(60) + b"PE\0\0"), REFUSED),
    "a pickle that runs a command": (lambda: pickle.dumps(Runs()), REFUSED),
    "a NumPy array": (fixed(b"\x93NUMPY\x01\0\x76\0{'descr': '|O', }"), REFUSED),
    "a tensor file": (fixed(b"\x08\0\0\0\0\0\0\0{}      "), REFUSED),
    "MP4": (fixed(b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + bytes(99)), REFUSED),
    "HEIC": (fixed(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)), REFUSED),
    "JPEG XL": (fixed(b"\xff\x0a" + bytes(99)), REFUSED),
    "WAV": (fixed(b"RIFF\x24\0\0\0WAVEfmt " + bytes(60)), REFUSED),
    "AVI": (fixed(b"RIFF\x24\0\0\0AVI LIST" + bytes(60)), REFUSED),
    "MP3": (fixed(b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb" * 99), REFUSED),
    "Windows metafile": (fixed(b"\xd7\xcd\xc6\x9a" + bytes(99)), REFUSED),
    "enhanced metafile": (fixed(b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(99)), REFUSED),
    "HDF5": (fixed(b"\x89HDF\r\n\x1a\n" + bytes(99)), REFUSED),
    "GRIB": (fixed(b"GRIB" + bytes(99)), REFUSED),
    "FITS": (
        fixed(b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800)),
        REFUSED,
    ),
    "Photoshop": (fixed(b"8BPS\0\1" + bytes(99)), REFUSED),
    "icon": (saved("ICO"), REFUSED),
    "Apple icon": (saved("ICNS", gradient(32, 32)), REFUSED),
    "Targa": (saved("TGA"), REFUSED),
    "PCX": (saved("PCX"), REFUSED),
    "SGI": (saved("SGI"), REFUSED),
    "DirectDraw surface": (saved("DDS"), REFUSED),
    "X bitmap": (saved("XBM", gradient(16, 16).convert("1")), REFUSED),
    "IM": (saved("IM"), REFUSED),
    "SPIDER": (saved("SPIDER", gradient(16, 16).convert("F")), REFUSED),
    "a PNG in base64 once more": (lambda: base64.b64encode(png.FINE), REFUSED),
    "a PNG behind a line": (fixed(b"\n" + png.FINE), REFUSED),
    "a PNG behind a byte order mark": (fixed(b"\xef\xbb\xbf" + png.FINE), REFUSED),
    "a PNG as text with other line ends": (
        fixed(png.FINE.replace(b"\r\n", b"\n", 1)),
        REFUSED,
    ),
    "a PNG with its high bits cut": (lambda: bytes(b & 0x7F for b in png.FINE), REFUSED),
    "a PNG read as UTF-8": (lambda: png.FINE.decode("utf-8", "replace").encode(), REFUSED),
    "the start of a PNG before a JPEG": (lambda: png.MAGIC + jpeg.FINE, REFUSED),
    "the start of a JPEG before a PNG": (lambda: b"\xff\xd8\xff" + png.FINE, REFUSED),
    "the start of a GIF before HTML": (fixed(b"GIF89a<script>alert(1)</script>"), REFUSED),
    "a PNG before HTML": (lambda: png.FINE + b"<script>alert(1)</script>", READ),
    "a PNG before a ZIP": (lambda: png.FINE + zipped(), READ),
    "backwards": (lambda: png.FINE[::-1], REFUSED),
    "a bomb of 20000 squared": (lambda: encoded(Image.new("1", (20000, 20000))), REFUSED),
    "a bomb of 8193 squared": (lambda: encoded(Image.new("1", (8193, 8193))), REFUSED),
    "one pixel": (lambda: encoded(Image.new("RGB", (1, 1))), READ),
    "1 x 3000": (lambda: encoded(Image.new("L", (1, 3000))), READ),
    "3000 x 1": (lambda: encoded(Image.new("L", (3000, 1))), READ),
    "16 bits": (lambda: encoded(Image.new("I;16", (9, 9), 40000)), READ),
    "transparent everywhere": (lambda: encoded(Image.new("RGBA", (9, 9))), READ),
    "a palette with alpha": (
        lambda: encoded(gradient(9, 9).quantize(8), transparency=bytes(8)),
        READ,
    ),
    "black and white": (lambda: encoded(Image.new("1", (9, 9))), READ_OR_REFUSED),
}
