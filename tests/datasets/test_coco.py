"""COCO instances: a question per class, crowds ignored, all forms of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.coco_folder import SIZE, polygon, square, write_coco
from vllm_csp.datasets.annotations import decode_segmentation
from vllm_csp.datasets.coco import read_coco
from vllm_csp.datasets.item import DatasetError


def test_a_class_is_all_its_instances_and_a_crowd_is_ignored(tmp_path: Path) -> None:
    write_coco(tmp_path)
    [photo] = read_coco(tmp_path)  # the photo with nothing but a crowd is left out
    cat, dog = photo.items()
    assert (cat.kind, dog.kind) == ("cat", "dog")
    assert cat.question == "What is cat in this image? Please output segmentation mask."
    [raster] = cat.rasters()
    wanted = square(0, 0, 4, 4) | square(6, 0, 8, 4)
    assert ((raster == 1) == wanted).all()
    assert ((raster == 255) == (square(3, 0, 12, 2) & ~wanted)).all()


def test_pieces_of_one_instance_may_overlap(tmp_path: Path) -> None:
    write_coco(tmp_path)
    [raster] = read_coco(tmp_path)[0].items()[1].rasters()
    assert ((raster == 1) == (square(0, 6, 4, 10) | square(2, 8, 8, 12))).all()
    assert raster.max() == 1


def test_small_classes_can_be_left_out(tmp_path: Path) -> None:
    write_coco(tmp_path)
    share = square(0, 0, 4, 4).sum() * 1.6 / (SIZE[0] * SIZE[1])  # cats cover 24, the dog 36 pixels
    assert [one.kind for one in read_coco(tmp_path, least_share=share)[0].items()] == ["dog"]


def test_the_question_can_be_chosen(tmp_path: Path) -> None:
    write_coco(tmp_path)
    [photo] = read_coco(tmp_path, template="Segment the {}.")
    assert photo.items()[0].question == "Segment the cat."


def test_photos_may_lie_elsewhere(tmp_path: Path) -> None:
    write_coco(tmp_path / "photos")
    (tmp_path / "photos" / "instances.json").rename(tmp_path / "instances.json")
    with pytest.raises(DatasetError, match="neither in"):
        read_coco(tmp_path)
    [photo] = read_coco(tmp_path, tmp_path / "photos" / "images")
    assert photo.path.is_file()


@pytest.mark.parametrize("wrong", [{"counts": "@@@@"}, {"size": [2, 2]}, "text", [[1.0, 2.0]]])
def test_what_is_no_mask_is_refused(wrong: object) -> None:
    with pytest.raises(DatasetError):
        decode_segmentation(wrong, SIZE)


def test_no_polygon_is_an_empty_mask() -> None:
    assert not decode_segmentation([], SIZE).any()
    assert np.array_equal(decode_segmentation([polygon(1, 1, 3, 3)], SIZE), square(1, 1, 3, 3))
