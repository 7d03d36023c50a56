"""Folders of class-index masks: a question per class, unknown pixels ignored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vllm_csp.datasets.item import DatasetError
from vllm_csp.datasets.semantic import read_semantic

LABELS = ["null", "sky", "road", "unlabelled"]


def write(folder: Path, mode: str = "L") -> Path:
    """One photo: half sky, a strip of road, a pixel unlabelled, one beyond the labels, null."""
    for part in ("images", "masks"):
        (folder / "val" / part).mkdir(parents=True)
    (folder / "labels.json").write_text(json.dumps(LABELS))
    indices = np.zeros((8, 10), np.uint8)
    indices[:4] = 1
    indices[7] = 2
    indices[0, 0], indices[0, 1] = 3, 200
    mask = Image.fromarray(indices)
    if mode == "P":
        mask.putpalette(list(range(256)) * 3)
        assert mask.mode == "P"
    elif mode != "L":
        mask = mask.convert(mode)
    mask.save(folder / "val" / "masks" / "a.png")
    Image.new("RGB", (10, 8)).save(folder / "val" / "images" / "a.jpg")
    return folder


@pytest.mark.parametrize("mode", ["L", "P"])
def test_every_class_in_the_photo_is_asked_for(tmp_path: Path, mode: str) -> None:
    [photo] = read_semantic(write(tmp_path, mode), "val", "Segment the {}.")
    sky, road = photo.items()
    assert [sky.question, road.question] == ["Segment the sky.", "Segment the road."]
    assert [sky.key, road.kind] == ["a/sky", "road"]
    [raster] = sky.rasters()
    assert (raster == 1).sum() == 4 * 10 - 2
    assert (raster == 255).sum() == 2
    assert raster[5, 5] == 0  # null counts as not wanted


def test_small_classes_can_be_left_out(tmp_path: Path) -> None:
    [photo] = read_semantic(write(tmp_path), "val", least_share=0.2)
    assert [item.kind for item in photo.items()] == ["sky"]


def test_without_the_split_its_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="splits: val"):
        read_semantic(write(tmp_path))


def test_colours_instead_of_indices_are_refused(tmp_path: Path) -> None:
    [photo] = read_semantic(write(tmp_path, "RGB"), "val")
    with pytest.raises(DatasetError, match="class indices"):
        photo.items()


def test_a_photo_without_mask_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    Image.new("RGB", (10, 8)).save(tmp_path / "val" / "images" / "b.jpg")
    with pytest.raises(DatasetError, match=r"b\.jpg has no mask"):
        read_semantic(tmp_path, "val")
