"""gIoU and cIoU: LISA's stored numbers, and a pixel-by-pixel count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import MISSING, Precision, read_cases, recordings
from vllm_csp.datasets.item import Raster
from vllm_csp.evaluation.metrics import Overlap, Scores, Tally
from vllm_csp.masks import decode_mask

# LISA adds up in single precision.
SINGLE = 6e-8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stored_masks_give_the_stored_numbers(precision: Precision) -> None:
    forced = [one for one in recordings() if not one.generated]
    if not forced:
        pytest.skip(MISSING)
    total, cases = Tally(), {}
    for one in forced:
        overlap = Overlap.of(decode_mask(one.masks(precision)[0]), one.target())
        stored = one.numbers[precision]["per_mask"][one.row]
        assert (overlap.intersection, overlap.union) == (stored["intersection"], stored["union"])
        total.add(overlap)
        cases.setdefault(one.case["id"], (Tally(), one.numbers[precision]))[0].add(overlap)
    for tally, numbers in cases.values():
        assert tally.giou == pytest.approx(numbers["giou_alone"], abs=SINGLE)
        assert tally.ciou == pytest.approx(numbers["ciou_alone"], abs=SINGLE)
    stored = read_cases()["metrics_teacher_forced"][precision]["dev"]
    assert total.count == stored["n_masks"]
    assert total.giou == pytest.approx(stored["giou"], abs=SINGLE)
    assert total.ciou == pytest.approx(stored["ciou"], abs=SINGLE)


def pixel_by_pixel(mask: np.ndarray, target: Raster) -> tuple[int, int]:
    intersection = union = 0
    for given_here, wanted in zip(mask.ravel().tolist(), target.ravel().tolist(), strict=True):
        if wanted == 255:
            continue
        intersection += given_here and wanted == 1
        union += given_here or wanted == 1
    return intersection, union


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_overlap_is_the_count_of_pixels(seed: int, height: int, width: int) -> None:
    draws = np.random.default_rng(seed)
    mask = draws.random((height, width)) < draws.random()
    target = draws.choice(np.array([0, 1, 255], np.uint8), (height, width))
    overlap = Overlap.of(mask, target)
    assert (overlap.intersection, overlap.union) == pixel_by_pixel(mask, target)


def test_nothing_wanted_and_nothing_given_is_perfect_but_adds_nothing_to_ciou() -> None:
    scores = Scores()
    scores.add("absent", [Overlap(0, 0)])
    scores.add("present", [Overlap(1, 4)])
    assert scores.kinds["absent"].giou == pytest.approx(1, abs=2e-5)
    assert scores.total.giou == pytest.approx((1 + 0.25) / 2, abs=2e-5)
    assert scores.total.ciou == pytest.approx(0.25)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 x 3 pixels.* 3 x 2"):
        Overlap.of(np.zeros((2, 3), bool), np.zeros((3, 2), np.uint8))
