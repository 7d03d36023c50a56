"""Masks of several answers at once: each image's own size, one wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from vllm_csp.masks import unpack_mask
from vllm_csp.sam.embedding_cache import ImageEmbedding
from vllm_csp.sam.mask_service import MaskService, MaskSet
from vllm_csp.sam.postprocess import masks_from_logits
from vllm_csp.sam.resize import rows_seen
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


def test_padding_is_not_decoded(work: tuple[MaskService, list[Any], list[Any]]) -> None:
    service, _, queries = work
    embeddings = torch.randn(3, 256, 8, 8)
    sizes = [(64, 48), (20, 64), (33, 64)]
    images = [ImageEmbedding(one, size, size) for one, size in zip(embeddings, sizes, strict=True)]
    owner = [0, 0, 1, 2, 2, 2]
    sam = service._sam[0]
    whole = sam.decode(embeddings, torch.cat(queries), owner)
    for image, rows in enumerate(queries):
        [size] = {images[image].input_size}
        found = service.low_res_logits([images[image]], [rows])
        # Of 32 x 32 logits, in cells of 4 x 4.
        height, width = (4 * -(-rows_seen(side, 32, 64) // 4) for side in size)
        expected = whole[[place for place, one in enumerate(owner) if one == image]]
        assert torch.allclose(found[:, :height, :width], expected[:, :height, :width], atol=1e-5)
        assert not found[:, height:].any() and not found[:, :, width:].any()
        assert height < 32 or width < 32
    together = service.decode(images, queries)
    alone = [service.decode([one], [rows])[0] for one, rows in zip(images, queries, strict=True)]
    assert [one.masks for one in together] == [one.masks for one in alone]


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


def test_masks_that_cannot_be_made_take_no_others_along(
    work: tuple[MaskService, list[Any], list[Any]],
) -> None:
    service, images, queries = work
    expected = service.decode(images, queries)
    assert service.decode_each(images, queries) == expected
    images[1] = replace(images[1], original_size=(1 << 22, 1 << 22))  # A mask of 16 TiB.
    first, failed, last = service.decode_each(images, queries)
    assert failed == "RuntimeError"
    for found, before in ((first, expected[0]), (last, expected[2])):
        assert isinstance(found, MaskSet)
        assert len(found.masks) == len(before.masks)
        assert found.scores == pytest.approx(before.scores, abs=1e-4)
