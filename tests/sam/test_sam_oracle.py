"""Against the recorded outputs of unmodified LISA, step by step."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.overlap import iou
from tests.oracle import Precision, Recording, recording, recordings
from tests.sam.oracle_sam import OracleSam, pixels
from vllm_csp.images import sam_input_size, to_rgb
from vllm_csp.masks import encode_mask
from vllm_csp.sam.postprocess import masks_from_logits
from vllm_csp.sam.prompt_encoder import DensePositionEncoding
from vllm_csp.sam.sam import Sam

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
# Other CPU kernels alone move bf16 logits by 0.06 of their std (the oracle's noise floor).
LOGITS_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}
PIXEL_TOLERANCE = {"fp32": 1e-6, "bf16": 0.0}
EMBEDDING_TOLERANCE = {"fp32": 1e-4, "bf16": 0.1}
SUM_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3}


def check_sums(values: Tensor, expected: dict[str, Any], tolerance: float) -> None:
    wide = values.double()
    got = (wide.mean(), wide.std(correction=0), wide.abs().max())
    # A single value may be two steps of bf16 off where a sum of many is not.
    tolerances = (tolerance, tolerance, max(tolerance, 2 * torch.finfo(values.dtype).eps))
    for value, name, least in zip(got, ("mean", "std", "absmax"), tolerances, strict=True):
        scale = max(1.0, abs(expected[name]))
        assert abs(value.item() - expected[name]) < least * scale, name


def logits_error(logits: Tensor, expected: np.ndarray[Any, Any]) -> float:
    difference = logits.float().numpy() - expected
    return float(np.sqrt((difference**2).mean()) / expected.std())


def runs() -> list[Recording]:
    """One of each recorded run: its arrays are those of all of the run's rows."""
    return [one for one in recordings() if one.row == 0]


def queries_of(run: Recording, precision: Precision) -> Tensor:
    return torch.from_numpy(run.array(precision, "seg_embeddings"))


def decode(oracle_sam: OracleSam, run: Recording, precision: Precision) -> Tensor:
    queries = queries_of(run, precision)
    embedding = oracle_sam.embedding(run, precision)
    return oracle_sam.sam(precision).decode(embedding.expand(len(queries), -1, -1, -1), queries)


def stored_logits(run: Recording, precision: Precision) -> tuple[np.ndarray[Any, Any], int]:
    """Logits, and of how many rows and columns one is stored."""
    name, step = run.stored_logits
    return run.array(precision, name), step


def test_pictures_are_read_as_lisa_read_them(oracle: Path) -> None:
    for run in runs():
        rgb = to_rgb(run.image()).tobytes()
        assert hashlib.sha256(rgb).hexdigest() == run.case["image_rgb_sha256"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sam_pixels(oracle_sam: OracleSam, precision: Precision) -> None:
    for run in runs():
        if run.generated:
            resized = pixels(run.image_file)
            normal = oracle_sam.sam(precision).preprocess([resized])
            row = normal[0, 0, 0, :16].float().numpy()
            expected = run.array(precision, "sam_pixels_c0_row0_16")
            assert np.abs(row - expected).max() <= PIXEL_TOLERANCE[precision]
            check_sums(normal, run.numbers[precision]["sam_pixels"], tolerance=1e-6)
            assert list(resized.shape[:2]) == run.numbers["resized_size"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_image_embeddings(oracle_sam: OracleSam, precision: Precision) -> None:
    for run in runs():
        embedding = oracle_sam.embedding(run, precision)
        first, last = embedding[0, 0, 0, :16], embedding[0, 255, 63, -16:]
        for row, name in (
            (first, "sam_embedding_c0_row0_16"),
            (last, "sam_embedding_c255_row63_last16"),
        ):
            error = np.abs(row.float().numpy() - run.array(precision, name)).max()
            assert error < EMBEDDING_TOLERANCE[precision]
        sums = run.numbers[precision]["sam_image_embedding"]
        assert list(embedding.shape) == sums["shape"]
        check_sums(embedding, sums, SUM_TOLERANCE[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_low_res_logits(oracle_sam: OracleSam, precision: Precision) -> None:
    compared = 0
    for run in runs():
        expected, step = stored_logits(run, precision)
        logits = decode(oracle_sam, run, precision)[:, ::step, ::step]
        assert logits.shape == expected.shape
        if len(expected):
            assert logits_error(logits, expected) < LOGITS_TOLERANCE[precision]
            compared += len(expected)
    assert compared == 22


@pytest.mark.parametrize(("precision", "least_iou"), [("fp32", 0.999), ("bf16", 0.85)])
def test_masks(oracle_sam: OracleSam, precision: Precision, least_iou: float) -> None:
    side = oracle_sam.sam(precision).image_size
    for run in runs():
        size = (run.image().height, run.image().width)
        logits = decode(oracle_sam, run, precision)
        masks, scores = masks_from_logits(logits, sam_input_size(size, side), size, side)
        stored = run.numbers[precision]["masks"]
        assert masks.shape == (len(stored), *size)
        for mask, score, expected in zip(masks.numpy(), scores.tolist(), stored, strict=True):
            ours = encode_mask(mask, score, 0, "rle")
            assert iou(ours, expected["rle"]) >= least_iou, str(run)
            assert 0.5 < score <= 1.0


@pytest.fixture
def mixed_batch(oracle_sam: OracleSam) -> tuple[Tensor, Tensor]:
    """Image embeddings and queries of all fp32 runs, one row per mask."""
    queries = [queries_of(run, "fp32") for run in runs()]
    images = [
        oracle_sam.embedding(run, "fp32").expand(len(rows), -1, -1, -1)
        for run, rows in zip(runs(), queries, strict=True)
    ]
    return torch.cat(images), torch.cat(queries)


def test_decoding_mixed_images_equals_one_by_one_up_to_rounding(
    oracle_sam: OracleSam, mixed_batch: tuple[Tensor, Tensor]
) -> None:
    """fp32 kernels round differently per batch size, by up to 2.4e-5; the oracle's own floor for
    other kernels is 2.8e-5 and 4.1e-6 of the std. That it is rounding shows in float64."""
    sam = oracle_sam.sam("fp32")
    images, queries = mixed_batch
    together = sam.decode(images, queries)
    alone = sam.decode(images, queries, rows_at_once=1)
    assert logits_error(together, alone.numpy()) < 4.1e-6

    wide = Sam(sam.geometry).double().eval()
    wide.load_weights(oracle_sam.weights().items())
    images, queries = images[::6].double(), queries[::6].double()
    together = wide.decode(images, queries)
    alone = wide.decode(images, queries, rows_at_once=1)
    assert (together - alone).abs().max() < 1e-12


def test_a_row_does_not_see_its_neighbours(
    oracle_sam: OracleSam, mixed_batch: tuple[Tensor, Tensor]
) -> None:
    sam = oracle_sam.sam("fp32")
    images, queries = mixed_batch[0][:8], mixed_batch[1][:8]
    other_images, other_queries = images.roll(3, 0), queries.neg()
    other_images[5], other_queries[5] = images[5], queries[5]
    before = sam.decode(images, queries)
    after = sam.decode(other_images, other_queries)
    assert torch.equal(before[5], after[5])
    assert not torch.equal(before[4], after[4])


def test_the_comparison_notices_a_positional_encoding_in_fp32(
    oracle_sam: OracleSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 LISA computes it in bf16; upstream's fp32 grid is measurably something else."""
    run = recording("d01-answer")
    expected, _ = stored_logits(run, "bf16")
    encoder = oracle_sam.sam("bf16").prompt_encoder
    wide = DensePositionEncoding(128)
    wide.positional_encoding_gaussian_matrix = (
        encoder.pe_layer.positional_encoding_gaussian_matrix.float()
    )
    in_fp32 = wide(encoder.image_embedding_size).unsqueeze(0)
    assert (encoder.get_dense_pe().float() - in_fp32).abs().max() > 0.1

    right = decode(oracle_sam, run, "bf16")
    monkeypatch.setattr(encoder, "get_dense_pe", in_fp32.bfloat16)
    wrong = decode(oracle_sam, run, "bf16")
    assert logits_error(wrong, right.float().numpy()) > 0.01
    if logits_error(right, expected) > 0.002:
        pytest.skip("bf16 kernels of this CPU differ from the recording's by as much as the effect")
    assert logits_error(wrong, expected) > 0.01


def test_the_comparison_notices_swapped_images(oracle_sam: OracleSam) -> None:
    one, other = recording("d01-answer"), recording("d02-answer")
    embedding = oracle_sam.embedding(other, "fp32")
    logits = oracle_sam.sam("fp32").decode(embedding, queries_of(one, "fp32"))
    assert logits_error(logits, stored_logits(one, "fp32")[0]) > 0.1
