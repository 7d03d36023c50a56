"""ReasonSeg folders: pixels as LISA draws them, texts as it asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.oracle import MISSING, oracle_folder, read_cases
from vllm_csp.datasets.item import DatasetError, Item
from vllm_csp.datasets.reasonseg import draw_shapes, read_labelme, read_reasonseg


def box(label: str, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {"label": label, "shape_type": "polygon", "points": corners}


def write(folder: Path, name: str, encoding: str = "utf-8", **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(folder / f"{name}.jpg")
    text = json.dumps({"shapes": [], **content}, ensure_ascii=False)
    (folder / f"{name}.json").write_bytes(text.encode(encoding))


def only_item(folder: Path) -> Item:
    [photo] = read_reasonseg(folder)
    [item] = photo.items()
    return item


def test_the_oracles_polygons_give_the_oracles_rasters() -> None:
    cases = [one["teacher_forced"] for one in read_cases()["cases"] if "teacher_forced" in one]
    if not cases:
        pytest.skip(MISSING)
    for truth in [one for case in cases for one in case["gt"]]:
        expected = np.asarray(Image.open(oracle_folder() / truth["raster"]))
        shapes = read_labelme(oracle_folder() / truth["labelme"])["shapes"]
        drawn = draw_shapes(shapes, (expected.shape[0], expected.shape[1]))
        assert (drawn == expected).all(), truth["labelme"]


def test_large_shapes_are_drawn_first_and_flags_not_at_all() -> None:
    shapes = [box("target", 4, 4, 6, 6), box("Ignore this", 2, 2, 9, 9), box("FLAG", 0, 0, 19, 9)]
    raster = draw_shapes(shapes, (10, 20))
    assert raster[5, 5] == 1  # on top of the larger ignored one
    assert raster[3, 3] == 255
    assert raster[0, 0] == 0
    assert np.unique(raster[2:10, 2:10]).tolist() == [1, 255]


@pytest.mark.parametrize(
    ("is_sentence", "question"),
    [
        (False, "What is the old clock in this image? Please output segmentation mask."),
        (True, "the old clock Please output segmentation mask."),
    ],
)
def test_the_first_text_is_asked_by_the_template_of_its_kind(
    tmp_path: Path, is_sentence: bool, question: str
) -> None:
    write(tmp_path, "a", text=["the old clock", "another text"], is_sentence=is_sentence)
    assert only_item(tmp_path).question == question


def test_texts_in_windows_code_page_are_read(tmp_path: Path) -> None:
    write(tmp_path, "a", "cp1252", text=["the café\u0160 door"], is_sentence=False)
    assert "café\u0160 door" in only_item(tmp_path).question


def test_bytes_that_are_no_text_are_an_error_with_the_files_name(tmp_path: Path) -> None:
    write(tmp_path, "a", text=["x"], is_sentence=False)
    (tmp_path / "a.json").write_bytes(b'{"text": ["\x81"')
    with pytest.raises(DatasetError, match=r"a\.json is no JSON"):
        only_item(tmp_path)


def test_splits_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "val", "a", text=["x"], is_sentence=False)
    assert len(read_reasonseg(tmp_path, "val")) == 1
    with pytest.raises(DatasetError, match="splits: val"):
        read_reasonseg(tmp_path)


def test_rasters_are_as_upright_as_the_photo(tmp_path: Path) -> None:
    write(tmp_path, "a", text=["x"], is_sentence=False, shapes=[box("target", 0, 0, 3, 15)])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    [raster] = only_item(tmp_path).rasters()
    assert raster.shape == (20, 10)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", text=[])
    with pytest.raises(DatasetError, match=r"a\.json is no ReasonSeg file"):
        only_item(tmp_path)
