"""Answers in the forms of other tools, read back by those tools."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_studio_converter import brush
from pycocotools.coco import COCO

from tests.serving.segment.answers import HEIGHT, WIDTH, Pixels, answer_with, made_masks
from vllm_csp.serving.segment.formats.label_studio import brush_rle
from vllm_csp.serving.segment.response import SegmentResponse

ROOT = Path(__file__).parents[3]
FIFTYONE = Path(os.environ.get("VLLM_CSP_FIFTYONE", ROOT / ".venv-fiftyone" / "bin" / "python"))


@pytest.fixture(params=["rle", "png"])
def answer(request: pytest.FixtureRequest) -> SegmentResponse:
    return answer_with(made_masks(), request.param)


def same(found: Pixels, expected: list[Pixels]) -> bool:
    return np.array_equal(found, np.stack(expected))


def test_numpy_arrays_are_the_masks(answer: SegmentResponse) -> None:
    assert answer.to_numpy().dtype == bool
    assert same(answer.to_numpy(), made_masks())
    assert same(answer.results[0].to_numpy(), made_masks()[:1])
    assert answer_with([]).to_numpy().shape == (0, HEIGHT, WIDTH)


def test_overlay_changes_the_pixels_of_masks_only(answer: SegmentResponse) -> None:
    photo = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    few = answer.results[0]
    drawn = few.overlay(photo)
    scale = drawn.width // WIDTH
    changed = (np.asarray(drawn) != 90).any(axis=2)
    mask = np.kron(made_masks()[0], np.ones((scale, scale), bool))
    assert changed[mask].mean() > 0.99
    assert 0 < changed[~mask].mean() < 0.1  # an outline
    with pytest.raises(ValueError, match="53 x 37 pixels, this one has 10 x 10"):
        answer.overlay(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ValueError, match="give the image itself"):
        answer.overlay("https://example.org/a.png")


def test_pycocotools_reads_the_annotations(answer: SegmentResponse, tmp_path: Path) -> None:
    annotations = answer.to_coco(image_id=7, first_id=100)
    dataset = {
        "images": [{"id": 7, "width": WIDTH, "height": HEIGHT, "file_name": "a.png"}],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 5)],
        "annotations": annotations,
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(dataset))
    coco = COCO(str(file))
    found = [coco.annToMask(coco.anns[number]) for number in range(100, 105)]
    assert same(np.stack(found).astype(bool), made_masks())
    assert [one["category_id"] for one in annotations] == [1, 2, 3, 4, 4]
    for one, pixels in zip(annotations, made_masks(), strict=True):
        assert one["area"] == pixels.sum()
    results = coco.loadRes(annotations)
    assert len(results.getAnnIds(imgIds=[7])) == 5
    ids = {f"thing {i}": 40 + i for i in range(4)}
    assert [one["category_id"] for one in answer.to_coco(7, ids)] == [40, 41, 42, 43, 43]


def test_supervision_has_masks_classes_and_boxes(answer: SegmentResponse) -> None:
    detections = answer.to_supervision()
    assert same(detections.mask, made_masks())
    assert list(detections.data["class_name"]) == [f"thing {min(i, 3)}" for i in range(5)]
    assert list(detections.class_id) == [0, 1, 2, 3, 3]
    assert np.allclose(detections.confidence, [0.5, 0.55, 0.6, 0.65, 0.7])
    # Its own boxes of the masks; it counts the last pixel in, and has none for nothing.
    own = supervision.mask_to_xyxy(detections.mask[:4])
    assert np.array_equal(detections.xyxy[:4], own + np.array([0, 0, 1, 1]))
    assert list(detections.area) == [pixels.sum() for pixels in made_masks()]
    assert len(detections[detections.confidence > 0.57]) == 3
    drawn = supervision.MaskAnnotator().annotate(np.zeros((HEIGHT, WIDTH, 3), np.uint8), detections)
    assert drawn.any(axis=2).all()
    assert len(answer_with([]).to_supervision()) == 0


def test_label_studio_reads_the_masks_back(answer: SegmentResponse) -> None:
    rows = answer.to_label_studio(labels={f"thing {i}": f"label{i}" for i in range(4)})
    flat = [
        {**row["value"], **{name: row[name] for name in row if name != "value"}} for row in rows
    ]
    layers = brush.decode_from_annotation("tag", flat)
    assert list(layers) == [
        *(f"tag-label{i}-0" for i in range(4)),
        "tag-label3-1",
    ]
    assert same(np.stack(list(layers.values())) == 255, made_masks())


@settings(deadline=None, max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_brush_strokes_of_any_mask_are_read_back(mask: Pixels) -> None:
    rgba = brush.decode_rle(brush_rle(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(rgba == 255, np.repeat(mask[..., None], 4, axis=2))


def test_long_brush_strokes_are_read_back() -> None:
    """A run has at most 65536 bytes, a row of pixels more."""
    mask = np.zeros((300, 400), bool)
    mask[20:280] = True
    assert np.array_equal(brush.decode_rle(brush_rle(mask))[3::4].reshape(mask.shape), mask * 255)


def test_fiftyone_reads_the_masks_back(tmp_path: Path) -> None:
    """In an environment of its own, without vLLM: `make fiftyone` builds it."""
    if not FIFTYONE.exists():
        pytest.skip("no environment with FiftyOne: `make fiftyone` builds it")
    (tmp_path / "answer.json").write_text(answer_with(made_masks()).model_dump_json())
    np.save(tmp_path / "masks.npy", np.stack(made_masks()))
    script = Path(__file__).with_name("fiftyone_reader.py")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "FIFTYONE_DO_NOT_TRACK": "true",
    }
    done = subprocess.run(
        [FIFTYONE, script, tmp_path], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "4 detections agree" in done.stdout
