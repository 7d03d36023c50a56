"""Images take no more memory than they may, wherever they are."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from vllm.exceptions import GracefulHTTPError, VLLMValidationError

from tests.media.conftest import Host, png
from tests.pictures import data_url, encoded, gradient
from vllm_csp.images import ImageError
from vllm_csp.media import memory as memory_module
from vllm_csp.media.connector import PublicMediaConnector
from vllm_csp.media.image_io import LisaImageIO
from vllm_csp.media.memory import DECODING_BYTES, NO_LIMIT, RGB_BYTES, ImageMemory

SIDE = 512
PIXELS = SIDE * SIDE
KEPT = PIXELS * RGB_BYTES
WHILE_DECODED = PIXELS * (RGB_BYTES + DECODING_BYTES)
FILE = encoded(gradient(SIDE, SIDE))


class Refusals:
    """How often there was no room."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Refusals:
    """Of a memory with room for one image that is decoded and one that is kept."""
    monkeypatch.setattr(memory_module, "PATIENCE_SECONDS", 0.2)
    return Refusals()


@pytest.fixture
def memory(refusals: Refusals) -> Iterator[ImageMemory]:
    gc.collect()  # Images of tests before this one may be in reference cycles.
    found = ImageMemory.instance()
    found.bound(WHILE_DECODED + KEPT, refusals)
    assert found.held == 0
    yield found
    assert found.held == 0
    found.bound(NO_LIMIT, lambda: None)


def decoded(file: bytes = FILE) -> Image.Image:
    return LisaImageIO().load_bytes(file).media


def test_an_image_counts_as_long_as_anybody_has_it(memory: ImageMemory) -> None:
    image = decoded()
    again = [image]
    assert memory.held == KEPT
    del image
    assert memory.held == KEPT
    again.clear()
    assert memory.held == 0


def test_what_cannot_be_decoded_leaves_nothing(memory: ImageMemory) -> None:
    for file in (FILE[:-200], b"hello"):
        with pytest.raises(ImageError):
            decoded(file)
    assert memory.held == 0


def test_the_next_one_waits_for_room(
    memory: ImageMemory, monkeypatch: pytest.MonkeyPatch, refusals: Refusals
) -> None:
    monkeypatch.setattr(memory_module, "PATIENCE_SECONDS", 20)
    kept = [decoded(), decoded()]
    found: list[Image.Image] = []
    thread = threading.Thread(target=lambda: found.append(decoded()))
    thread.start()
    time.sleep(0.3)
    assert not found
    kept.pop()
    thread.join(10)
    assert len(found) == 1
    assert refusals.count == 0


def test_without_room_it_is_refused(memory: ImageMemory, refusals: Refusals) -> None:
    kept = [decoded(), decoded()]
    with pytest.raises(GracefulHTTPError, match="as many images as it may") as refused:
        decoded()
    assert refused.value.http_status == 503
    assert (refusals.count, memory.held) == (1, 2 * KEPT)
    kept.clear()
    assert decoded().size == (SIDE, SIDE)


def test_what_never_has_room_is_the_clients_mistake(memory: ImageMemory) -> None:
    with pytest.raises(VLLMValidationError, match=r"at most 6 MiB .* takes 20 to decode"):
        decoded(encoded(gradient(2 * SIDE, 2 * SIDE)))


def test_many_threads_never_hold_more(
    memory: ImageMemory, monkeypatch: pytest.MonkeyPatch, refusals: Refusals
) -> None:
    monkeypatch.setattr(memory_module, "PATIENCE_SECONDS", 60)
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, memory.held)

    def work() -> None:
        for _ in range(5):
            decoded()

    threads = [threading.Thread(target=work) for _ in range(8)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    watcher.join()
    assert 0 < most <= WHILE_DECODED + KEPT
    assert refusals.count == 0


def fetch(url: str) -> Image.Image:
    connector = PublicMediaConnector(allowed_media_domains=["127.0.0.1"])
    return asyncio.run(connector.fetch_image_async(url))


def test_files_count_while_they_are_fetched(memory: ImageMemory, host: Host) -> None:
    image = fetch(host.url("image.png"))
    assert memory.held == 8 * 6 * RGB_BYTES
    del image
    memory.bound(len(png()) - 1, lambda: None)
    with pytest.raises(GracefulHTTPError, match="as many images as it may"):
        fetch(host.url("image.png"))
    with pytest.raises(VLLMValidationError, match="send a smaller one"):
        fetch(data_url(FILE))


LARGE = 3000
ARENAS = 32 << 20
"""What Pillow keeps for the next image."""
MODES = {
    "PNG": "RGBA",
    "JPEG": "CMYK",
    "WEBP": "RGBA",
    "TIFF": "CMYK",
    "AVIF": "RGBA",
    "GIF": "P",
}
MEASURE = """
import sys
from vllm_csp.images import decode_image, image_key
def most():
    [line] = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
    return int(line.split()[1]) << 10
file = open(sys.argv[1], "rb").read()
decode_image(open(sys.argv[2], "rb").read())
before = most()
image = decode_image(file)
print(most() - before)
before = most()
image_key(image)
print(most() - before)
"""


@pytest.mark.parametrize("kind", MODES)
def test_decoding_takes_no_more_than_is_counted(kind: str, tmp_path: Path) -> None:
    """By the process's high-water mark, with the worst of each format: turned, and progressive."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"JPEG": {"progressive": True}, "WEBP": {"lossless": True}}.get(kind, {})
    files = []
    for side in (LARGE, 16):
        image = Image.new(MODES[kind], (side, side))
        files.append(tmp_path / f"{side}.{kind.lower()}")
        image.save(files[-1], kind, exif=exif, **options)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    decoding, hashing = map(int, done.stdout.split())
    assert decoding <= LARGE * LARGE * (RGB_BYTES + DECODING_BYTES) + ARENAS
    assert hashing < ARENAS
