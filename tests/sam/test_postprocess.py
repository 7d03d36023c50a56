import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from vllm_csp.masks import unpack_mask
from vllm_csp.sam.postprocess import (
    PIXELS_PER_CHUNK,
    masks_from_logits,
    pack_bits,
    packed_masks,
)
from vllm_csp.sam.resize import rows_seen


def low_res(rows: int) -> torch.Tensor:
    """Smooth logits [rows, 32, 32] of both signs."""
    coarse = torch.randn(rows, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, (32, 32), mode="bicubic")[:, 0]


def pack(masks: torch.Tensor) -> list[bytes]:
    return [row.tobytes() for row in pack_bits(masks).numpy()]


def test_upscales_crops_upscales_and_thresholds() -> None:
    logits = low_res(2)
    masks, _ = masks_from_logits(logits, (100, 128), (75, 96), 128)
    square = functional.interpolate(logits[:, None], (128, 128), mode="bilinear")
    full = functional.interpolate(square[..., :100, :128], (75, 96), mode="bilinear")[:, 0]
    assert masks.dtype == torch.bool
    assert torch.equal(masks, full > 0)


@pytest.mark.parametrize("height", [1, 2, 37, 61, 62, 63, 100, 125, 128])
def test_only_the_seen_rows_are_read(height: int) -> None:
    logits = low_res(2)
    seen = rows_seen(height, 32, 128)
    blind = logits.clone()
    blind[:, seen:] = torch.nan
    expected = masks_from_logits(logits, (height, 128), (75, 96), 128)
    found = masks_from_logits(blind, (height, 128), (75, 96), 128)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    square = functional.interpolate(logits[:, None], (128, 128), mode="bilinear")
    full = functional.interpolate(square[..., :height, :], (75, 96), mode="bilinear")[:, 0]
    assert torch.equal(found[0], full > 0)


def test_score_is_the_mean_probability_inside_the_mask() -> None:
    logits = low_res(2)
    masks, scores = masks_from_logits(logits, (128, 128), (128, 128), 128)
    full = functional.interpolate(logits[:, None], (128, 128), mode="bilinear")[:, 0]
    for mask, score, row in zip(masks, scores, full, strict=True):
        assert score.item() == pytest.approx(row.sigmoid()[mask].mean().item(), abs=1e-6)


def test_empty_mask_scores_zero_and_full_mask_scores_its_probability() -> None:
    logits = torch.stack([torch.full((32, 32), -1.0), torch.full((32, 32), 2.0)])
    masks, scores = masks_from_logits(logits, (64, 128), (10, 20), 128)
    assert masks.sum(dim=(1, 2)).tolist() == [0, 200]
    assert scores.tolist() == pytest.approx([0.0, torch.tensor(2.0).sigmoid().item()])


def test_a_logit_of_zero_is_background() -> None:
    masks, scores = masks_from_logits(torch.zeros(1, 32, 32), (128, 128), (5, 5), 128)
    assert not masks.any()
    assert scores.tolist() == [0.0]


def test_no_masks() -> None:
    masks, scores = masks_from_logits(torch.zeros(0, 32, 32), (128, 128), (5, 7), 128)
    assert masks.shape == (0, 5, 7)
    assert scores.shape == (0,)
    assert pack(masks) == []


def test_chunks_do_not_change_the_result() -> None:
    logits = low_res(5)
    masks, scores = masks_from_logits(logits, (100, 128), (75, 96), 128)
    pieces = packed_masks(logits, (100, 128), (75, 96), 128, pixels_per_chunk=1)
    assert torch.equal(pieces[0], pack_bits(masks))
    assert torch.allclose(pieces[1], scores)


def test_half_precision_logits_are_upscaled_in_fp32() -> None:
    logits = low_res(2).bfloat16()
    half, _ = masks_from_logits(logits, (100, 128), (75, 96), 128)
    wide, _ = masks_from_logits(logits.float(), (100, 128), (75, 96), 128)
    assert torch.equal(half, wide)


def peak_bytes(folder: Path, call: Callable[[], object]) -> int:
    """The most memory that torch holds at a time for what `call` makes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    watched.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [one for one in events if one["name"] == "[memory]"]
    held = np.cumsum([one["args"]["Bytes"] for one in sorted(changes, key=lambda one: one["ts"])])
    return int(held.max())


def test_memory_does_not_grow_with_the_masks_of_an_answer(tmp_path: Path) -> None:
    """Only their bits do, an eighth of a byte a pixel, once in parts and once together."""
    height, width = 1200, 1600
    few, many = 2 * PIXELS_PER_CHUNK // (height * width), 60
    peaks = []
    for count in (few, many):
        logits = torch.randn(count, 64, 64)
        call = partial(packed_masks, logits, (48, 64), (height, width), 64)
        peaks.append(peak_bytes(tmp_path, call))
    assert peaks[0] > PIXELS_PER_CHUNK
    assert peaks[1] - peaks[0] < 1.1 * 2 * (many - few) * height * width / 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (3, 5), (7, 8), (13, 17)])
def test_packed_masks_unpack_to_themselves(size: tuple[int, int]) -> None:
    masks = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = pack(masks)
    assert [len(data) for data in packed] == [-(-size[0] * size[1] // 8)] * 3
    for mask, data in zip(masks.numpy(), packed, strict=True):
        assert np.array_equal(unpack_mask(data, size), mask)


def test_bits_run_down_the_columns_first_bit_highest() -> None:
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[0, 1, 0] = True
    mask[0, 0, 3] = True
    assert pack(mask) == [bytes([0b01000000, 0b01000000])]


def test_every_byte_is_packed_bit_by_bit() -> None:
    masks = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8))).bool().view(256, 8, 1)
    assert b"".join(pack(masks)) == bytes(range(256))


def test_unpacked_mask_is_what_pycocotools_wants() -> None:
    mask = torch.rand(1, 13, 17, generator=torch.Generator().manual_seed(0)) > 0.5
    unpacked = unpack_mask(pack(mask)[0], (13, 17))
    assert unpacked.flags.f_contiguous
    expected = coco.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8)))
    assert coco.encode(unpacked.view(np.uint8)) == expected


def test_length_that_does_not_fit_the_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 bytes do not hold a mask of 3 x 2 pixels"):
        unpack_mask(b"ab", (3, 2))
