"""LISA's pipeline step by step, through the real engine, against LISA's own numbers.

The tests are in the order of the pipeline: the first to fail shows the step that is wrong.
Tolerances in fp32 are far above the rounding of other kernels (4e-6 of the standard deviation) and
far below what any mistake does (the table in the oracle's README starts at 4e-3). In bf16 other
kernels alone move the logits by 0.06 of their standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.overlap import iou
from tests.oracle import IMAGE_ROWS, Precision, Recording, each_recording
from tests.parity.conftest import Run
from tests.parity.probe import Floats
from vllm_csp.images import sam_input_size
from vllm_csp.sam.resize import rows_seen

FP32 = 1e-3
ROWS: Mapping[Precision, float] = {"fp32": FP32, "bf16": 0.05}
SUMS: Mapping[Precision, float] = {"fp32": FP32, "bf16": 5e-3}
SAM_ROWS: Mapping[Precision, float] = {"fp32": FP32, "bf16": 0.1}
LOGITS_RMS: Mapping[Precision, float] = {"fp32": FP32, "bf16": 0.12}
LEAST_COSINE = 0.999
LEAST_IOU: Mapping[Precision, float] = {"fp32": 0.999, "bf16": 0.86}

generated = each_recording(lambda one: one.generated)
with_masks = each_recording(lambda one: bool(one.masks("fp32")))


def assert_rows(ours: Floats, reference: Floats, tolerance: float, scale: float) -> None:
    assert ours.shape == reference.shape
    assert np.abs(ours - reference).max() <= tolerance * scale


def assert_sums(ours: Floats, sums: Mapping[str, Any], tolerance: float) -> None:
    wide = ours.astype(np.float64)
    found = {"mean": wide.mean(), "std": wide.std(), "absmax": np.abs(wide).max()}
    allowed = dict.fromkeys(found, tolerance * sums["std"])
    if tolerance > FP32:  # One value, which bf16 knows to a 128th: two such steps.
        allowed["absmax"] = max(allowed["absmax"], sums["absmax"] / 64)
    for name, value in found.items():
        assert abs(value - sums[name]) <= allowed[name], name


def cosines(ours: Floats, reference: Floats) -> Floats:
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(reference, axis=-1)
    return (ours * reference).sum(-1) / norms


@each_recording()
def test_prompts_have_the_recorded_ids(run: Run, recording: Recording) -> None:
    image_token = run.engine.llm.get_tokenizer().image_token_id
    expected: list[int] = []
    for token in recording.prompt_ids():
        expected += [image_token] * IMAGE_ROWS if token == -200 else [token]
    assert run.answer(recording).prompt_token_ids == expected


@generated
def test_clip_pixels_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    pixels = run.note(recording, "clip_pixels")
    row = recording.array(run.precision, "clip_pixels_c0_row0_16")
    assert_rows(pixels[0, 0, 0, :16], row, 1e-5, scale=1.0)
    assert_sums(pixels, recording.numbers[run.precision]["clip_pixels"], 1e-5)


@generated
def test_sam_pixels_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    pixels = run.note(recording, "sam_pixels")
    row = recording.array(run.precision, "sam_pixels_c0_row0_16")
    assert_rows(pixels[0, 0, 0, :16], row, 1e-5, scale=1.0)
    assert_sums(pixels, recording.numbers[run.precision]["sam_pixels"], 1e-5)


@each_recording()
def test_image_rows_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    """CLIP and projector, as the language model gets them: at the image's place in the prompt."""
    start = recording.image_position
    rows = run.note(recording, "hidden_0")[start : start + IMAGE_ROWS]
    sums = recording.numbers[run.precision]["image_features"]
    assert_sums(rows, sums, SUMS[run.precision])
    for number in (0, IMAGE_ROWS - 1):
        expected = recording.array(run.precision, f"image_features_row{number}_16")
        assert_rows(rows[number, :16], expected, ROWS[run.precision], scale=sums["std"])


@each_recording()
def test_sam_embeddings_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    embedding = run.note(recording, "sam_embedding")
    sums = recording.numbers[run.precision]["sam_image_embedding"]
    assert_sums(embedding, sums, SUMS[run.precision])
    for found, name in (
        (embedding[0, 0, 0, :16], "sam_embedding_c0_row0_16"),
        (embedding[0, 255, 63, -16:], "sam_embedding_c255_row63_last16"),
    ):
        expected = recording.array(run.precision, name)
        assert_rows(found, expected, SAM_ROWS[run.precision], scale=sums["std"])


@pytest.mark.parametrize("depth", ["hidden_0", "hidden_4", "hidden_8"])
@each_recording(lambda one: one.generated and one.case["id"] in ("d01", "d04"))
def test_the_residual_stream_is_the_recorded_one(
    run_fp32: Run, recording: Recording, depth: str
) -> None:
    """Every row that was fed, prompt and answer: inputs, after four layers, after all eight."""
    expected = recording.array("fp32", depth)
    assert_rows(run_fp32.note(recording, depth), expected, FP32, scale=float(expected.std()))


@generated
def test_answers_have_the_recorded_ids(run: Run, recording: Recording) -> None:
    assert run.answer(recording).token_ids == recording.generated_ids(run.precision)


@each_recording()
def test_texts_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    assert " ".join(run.answer(recording).text.split()) == recording.text(run.precision)


@with_masks
def test_readout_rows_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    """The final-norm row that predicted [SEG]."""
    hidden = run.seg_note(recording, "readout_hidden")
    expected = recording.seg_array(run.precision, "seg_hidden")
    assert cosines(hidden, expected).min() >= LEAST_COSINE
    if run.precision == "fp32":
        assert_rows(hidden, expected, FP32, scale=float(expected.std()))


@with_masks
def test_mask_queries_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    """`text_hidden_fcs` of that row."""
    queries = run.seg_note(recording, "readout_embeddings")
    expected = recording.seg_array(run.precision, "seg_embeddings")
    assert cosines(queries, expected).min() >= LEAST_COSINE
    if run.precision == "fp32":
        assert_rows(queries, expected, FP32, scale=float(expected.std()))


@with_masks
def test_mask_logits_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    """Of what masks are made of; the engine leaves out those of the padding."""
    height, width = (
        rows_seen(side, 256, 1024) for side in sam_input_size(recording.image().size[::-1])
    )
    name, step = recording.stored_logits
    logits = run.note(recording, "low_res_logits")[:, :height:step, :width:step]
    expected = recording.seg_array(run.precision, name)
    expected = expected[:, : -(-height // step), : -(-width // step)]
    assert logits.shape == expected.shape
    scale = expected.std()
    assert np.sqrt(((logits - expected) ** 2).mean()) <= LOGITS_RMS[run.precision] * scale
    if run.precision == "fp32":
        assert_rows(logits, expected, FP32, scale=float(scale))


@each_recording()
def test_masks_are_the_recorded_ones(run: Run, recording: Recording) -> None:
    """One per [SEG] of the answer; where the prompt holds one too, LISA counts it, we do not."""
    masks, expected = run.answer(recording).masks, recording.masks(run.precision)
    assert len(masks) == len(expected)
    assert [mask["seg_index"] for mask in masks] == list(range(len(masks)))
    for mask, reference in zip(masks, expected, strict=True):
        assert iou(mask, reference) >= LEAST_IOU[run.precision]
