"""Masks of several answers at once: each image's own size, one wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vllm_csp.sam.embedding_cache import ImageEmbedding
from vllm_csp.sam.mask_service import MaskService
from vllm_csp.sam.postprocess import masks_from_logits, unpack_mask
from vllm_csp.sam.sam import Sam

SIZES = ((40, 30), (7, 9), (33, 64))
COUNTS = (2, 1, 3)


@pytest.fixture
def work(small_sam: Callable[[], Sam]) -> tuple[MaskService, list[Any], list[Any]]:
    torch.manual_seed(1)
    images = [ImageEmbedding(torch.randn(256, 8, 8), (64, 48), size) for size in SIZES]
    return MaskService(small_sam(), 1), images, [torch.randn(count, 256) for count in COUNTS]


def test_together_is_as_alone(work: tuple[MaskService, list[Any], list[Any]]) -> None:
    service, images, queries = work
    together = service.decode(images, queries)
    for image, rows, found in zip(images, queries, together, strict=True):
        logits = service.low_res_logits([image], [rows])
        masks, scores = masks_from_logits(logits, image.input_size, image.original_size, 64)
        assert found.size == image.original_size
        for bits, mask in zip(found.masks, masks, strict=True):
            assert (unpack_mask(bits, found.size) != mask.numpy()).mean() < 0.01
        assert found.scores == pytest.approx(scores.tolist(), abs=1e-4)


def test_the_device_is_waited_for_once(
    work: tuple[MaskService, list[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[str] = []
    for name in ("cpu", "tolist", "item", "__bool__", "__int__", "__float__"):
        own = getattr(torch.Tensor, name)

        def counted(tensor: Any, *args: Any, own: Any = own, name: str = name) -> Any:
            waits.append(name)
            return own(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    service, images, queries = work
    service.decode(images, queries)
    assert waits == ["cpu"]


def test_nothing_asked(work: tuple[MaskService, list[Any], list[Any]]) -> None:
    service, images, _ = work
    assert service.decode([], []) == []
    [found] = service.decode(images[:1], [torch.empty(0, 256)])
    assert (found.masks, found.scores) == ([], [])
