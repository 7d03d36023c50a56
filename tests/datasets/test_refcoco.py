"""refCOCO's published layout: a pickle of expressions, COCO's annotations."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.coco_folder import square, write_coco
from vllm_csp.datasets.item import DatasetError
from vllm_csp.datasets.refcoco import read_refcoco


def refs() -> list[dict[str, Any]]:
    """Two of photo 1 (its first cat, its dog) in `val`, one of photo 2 in `testA`."""
    texts = {7: ["Left CAT ", "the cat on the left"], 8: ["a dog"], 9: ["dogs"]}
    rows = [(7, 100, 1, 17, "val"), (8, 103, 1, 18, "val"), (9, 104, 2, 18, "testA")]
    return [
        {
            "ref_id": ref,
            "ann_id": annotation,
            "image_id": photo,
            "category_id": category,
            "split": split,
            "file_name": f"COCO_train2014_{photo:012}_{ref}.jpg",
            "sent_ids": list(range(len(texts[ref]))),
            "sentences": [
                {"sent_id": n, "sent": text.lower(), "raw": text, "tokens": text.split()}
                for n, text in enumerate(texts[ref])
            ],
        }
        for ref, annotation, photo, category, split in rows
    ]


@pytest.mark.parametrize("protocol", [0, 2, 4])  # the published files are old: 0 and 2
def test_every_expression_of_a_split_is_a_question(tmp_path: Path, protocol: int) -> None:
    write_coco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs(), protocol))
    [photo] = read_refcoco(tmp_path, "val")
    items = photo.items()
    assert [item.question for item in items] == [
        f"What is {text} in this image? Please output segmentation mask."
        for text in ("left cat", "the cat on the left", "a dog")
    ]
    assert [item.kind for item in items] == ["cat", "cat", "dog"]
    [cat], [dog] = items[0].rasters(), items[2].rasters()
    assert ((cat == 1) == square(0, 0, 4, 4)).all()
    assert ((dog == 1) == (square(0, 6, 4, 10) | square(2, 8, 8, 12))).all()


def test_json_is_taken_too_and_first(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(b"no pickle at all")
    (tmp_path / "refs(unc).json").write_text(json.dumps(refs()))
    [photo] = read_refcoco(tmp_path, "testA")
    assert [item.kind for item in photo.items()] == ["dog"]


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "refs.json").write_text(json.dumps(refs()))
    with pytest.raises(DatasetError, match="testA, val"):
        read_refcoco(tmp_path, "test")
