"""LISA's own metrics over all teacher-forced masks, as its `validate` computes them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.overlap import iou
from tests.oracle import MISSING, Precision, Recording, read_cases, recordings
from tests.parity.conftest import Run
from vllm_csp.evaluation.metrics import Overlap, Tally
from vllm_csp.masks import decode_mask

# fp32: rounding only. bf16: other kernels of the same code agree to a mask IoU of 0.87; LISA's own
# fp32 and bf16 runs differ by 0.004 in gIoU and 0.003 in cIoU.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.02}


def forced() -> list[Recording]:
    """All teacher-forced questions."""
    found = [one for one in recordings() if not one.generated]
    if not found:
        pytest.skip(MISSING)
    return found


def test_giou_and_ciou_are_the_stored_ones(run: Run) -> None:
    tally = Tally()
    for recording in forced():
        mask = decode_mask(run.answer(recording).masks[0])
        tally.add(Overlap.of(mask, recording.target()))
    stored = read_cases()["metrics_teacher_forced"][run.precision]["dev"]
    assert tally.count == stored["n_masks"]
    assert tally.giou == pytest.approx(stored["giou"], abs=TOLERANCE[run.precision])
    assert tally.ciou == pytest.approx(stored["ciou"], abs=TOLERANCE[run.precision])


def test_bf16_masks_agree_on_average(run_bf16: Run) -> None:
    overlaps = [
        iou(mask, reference)
        for recording in recordings()
        for mask, reference in zip(
            run_bf16.answer(recording).masks, recording.masks("bf16"), strict=True
        )
    ]
    assert len(overlaps) == 22 - 1  # d09's first mask belongs to the prompt
    assert np.mean(overlaps) >= 0.95
