"""Images encoded beside the language model: who reads an embedding waits for it, nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.sam.late_stream import LateStreams
from vllm_csp.sam import embedding_cache
from vllm_csp.sam.embedding_cache import ImageEmbedding
from vllm_csp.sam.encode_stream import EncodeStream
from vllm_csp.sam.mask_service import MaskService
from vllm_csp.sam.sam import Sam

KEYS = ("a", "b")
SIZES = [(64, 48), (40, 64)]


@pytest.fixture(autouse=True)
def read_late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels, by address, whose memory is kept for another stream."""
    kept: list[int] = []
    own = torch.Tensor.record_stream

    def record(tensor: torch.Tensor, stream: Any) -> None:
        kept.append(tensor.data_ptr())
        if tensor.is_cuda:
            own(tensor, stream)

    monkeypatch.setattr(torch.Tensor, "record_stream", record)
    return kept


def pixels(device: str = "cpu") -> list[torch.Tensor]:
    torch.manual_seed(3)
    made = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8) for size in SIZES]
    return [one.to(device) for one in made]


def queries() -> list[torch.Tensor]:
    torch.manual_seed(4)
    return [torch.randn(2, 256), torch.randn(1, 256)]


def encoded(service: MaskService) -> list[ImageEmbedding]:
    service.encode(KEYS, pixels(), SIZES)
    found = [service.embeddings.peek(key) for key in KEYS]
    return [one for one in found if one is not None]


def test_masks_wait_for_their_images(small_sam: Callable[[], Sam]) -> None:
    plain = MaskService(small_sam(), 2)
    beside = MaskService(small_sam(), 2, encode_stream=EncodeStream(LateStreams()))
    images = encoded(beside)
    assert all(one.embedding.isnan().all() for one in images), "control: nothing has run yet"
    expected = plain.decode(encoded(plain), queries())
    assert any(any(bits) for one in expected for bits in one.masks)
    assert beside.decode(images, queries()) == expected
    assert beside.decode(images, queries()) == expected


def test_nothing_waits_for_an_image_that_is_asked_about_later(
    small_sam: Callable[[], Sam],
) -> None:
    streams = LateStreams()
    service = MaskService(small_sam(), 2, encode_stream=EncodeStream(streams))
    service.encode(KEYS[:1], pixels()[:1], SIZES[:1])
    first = service.embeddings.peek("a")
    service.encode(KEYS[1:], pixels()[1:], SIZES[1:])
    assert first is not None
    service.decode([first], queries()[:1])
    [stream] = streams.made
    assert [work.replays for work in stream.work] == [1, 0]


def test_an_image_is_encoded_behind_what_was_launched_before(
    small_sam: Callable[[], Sam], read_late: list[int]
) -> None:
    """It reads pixels that come from there, and writes to memory that was read there."""
    streams = LateStreams()
    service = MaskService(small_sam(), 2, encode_stream=EncodeStream(streams))
    given = pixels()
    service.encode(KEYS[:1], given[:1], SIZES[:1])
    service.encode(KEYS, given, SIZES)
    service.encode(KEYS, given, SIZES)
    assert read_late == [one.data_ptr() for one in given]
    [stream] = streams.made
    assert stream.waited_for == [streams.current] * 2, "twice there was something to encode"


def test_an_embedding_goes_to_the_host_when_it_is_made(
    small_sam: Callable[[], Sam], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = MaskService(small_sam(), 1, 1, EncodeStream(LateStreams()))
    monkeypatch.setattr(embedding_cache, "_to_host", torch.clone)
    service.encode(KEYS, pixels(), SIZES)
    plain = encoded(MaskService(small_sam(), 2))
    back = service.embeddings.get("a")
    assert service.embeddings.host_hits == 1
    assert back is not None and back.made is None
    assert torch.equal(back.embedding, plain[0].embedding)


def test_time_is_taken_on_the_stream_that_encodes(small_sam: Callable[[], Sam]) -> None:
    streams = LateStreams()
    service = MaskService(small_sam(), 2, encode_stream=EncodeStream(streams))
    seen: list[Any] = []

    @contextmanager
    def running(device: torch.device) -> Iterator[None]:
        seen.append(streams.entered)
        yield
        seen.append(streams.entered)

    service._clock.running = running  # type: ignore[method-assign]
    service.encode(KEYS[:1], pixels()[:1], SIZES[:1])
    assert seen == [[service.encode_stream.own]] * 2 and streams.entered == []


def test_without_streams_all_is_in_order(small_sam: Callable[[], Sam]) -> None:
    images = encoded(MaskService(small_sam(), 2, encode_stream=EncodeStream()))
    assert [one.made for one in images] == [None, None]
    assert not any(one.embedding.isnan().any() for one in images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_masks_are_those_of_one_stream(small_sam: Callable[[], Sam]) -> None:
    found = []
    for stream in (EncodeStream(), EncodeStream(torch.cuda)):
        service = MaskService(small_sam().cuda(), 2, 2, stream)
        asked = [rows.cuda() for rows in queries()]
        masks = []
        for _ in range(20):
            # Work before, so that pixels come late; their memory is free again at once.
            torch.cuda._sleep(10_000_000)
            service.encode(KEYS, [one + 0 for one in pixels("cuda")], SIZES)
            torch.zeros(64, 64, 3, dtype=torch.uint8, device="cuda")
            images = [service.embeddings.peek(key) for key in KEYS]
            masks.append(service.decode([one for one in images if one], asked))
            service.encode(("c", "d"), pixels("cuda"), SIZES)
            service.encode(("e", "f"), pixels("cuda"), SIZES)
        assert all(one == masks[0] for one in masks)
        found.append(masks[0])
    assert found[0] == found[1]
