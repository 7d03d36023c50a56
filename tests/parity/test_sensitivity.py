"""The comparison would notice a wrong read-out row."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.overlap import iou
from tests.oracle import Recording, each_recording
from tests.parity import probe
from tests.parity.conftest import Run, seg_indexes
from tests.parity.test_steps import LEAST_COSINE, LEAST_IOU, cosines
from vllm_csp.images import image_key, to_rgb
from vllm_csp.masks import encode_mask


@pytest.mark.parametrize("shift", [-1, 1], ids=["one_early", "own_row"])
@each_recording(lambda one: one.generated and one.case["id"] in ("d01", "d04", "d06", "d08"))
def test_a_neighbouring_row_would_fail(run_fp32: Run, recording: Recording, shift: int) -> None:
    queries = run_fp32.note(recording, "readout_embeddings")
    indexes = [index + shift for index in seg_indexes(recording, run_fp32.answer(recording))]
    expected = recording.seg_array("fp32", "seg_embeddings")
    assert cosines(queries[indexes], expected).max() < 0.5 < LEAST_COSINE

    key = image_key(to_rgb(recording.image()))
    decode = partial(probe.decode, key=key, queries=queries[indexes])
    [masks] = run_fp32.engine.llm.apply_model(decode)
    for mask, reference in zip(masks, recording.masks("fp32"), strict=True):
        wrong = iou(encode_mask(mask, 0.0, 0, "rle"), reference)
        assert wrong < LEAST_IOU["bf16"] < LEAST_IOU["fp32"]


@each_recording(lambda one: one.generated and one.case["id"] in ("d01", "d04"))
def test_the_right_row_decodes_to_the_stored_masks(run_fp32: Run, recording: Recording) -> None:
    """By the same way as the wrong rows above."""
    queries = run_fp32.seg_note(recording, "readout_embeddings")
    key = image_key(to_rgb(recording.image()))
    decode = partial(probe.decode, key=key, queries=queries)
    [masks] = run_fp32.engine.llm.apply_model(decode)
    for mask, reference in zip(masks, recording.masks("fp32"), strict=True):
        assert iou(encode_mask(mask, 0.0, 0, "rle"), reference) >= LEAST_IOU["fp32"]
